import { Errors, Flags } from '@oclif/core';

interface Limits {
  readonly integer?: boolean;
  readonly min: number;
  readonly max?: number;
  /** The smallest value itself is refused. */
  readonly exclusive?: boolean;
}

const phrase = ({ integer, min, max, exclusive }: Limits): string =>
  [
    integer === true ? 'an integer' : 'a number',
    exclusive === true ? `above ${min}` : `of at least ${min}`,
    ...(max === undefined ? [] : [`and at most ${max}`]),
  ].join(' ');

function isWithin(value: number, { integer, min, max = Infinity, exclusive }: Limits): boolean {
  if (!Number.isFinite(value) || (integer === true && !Number.isSafeInteger(value))) return false;
  return (exclusive === true ? value > min : value >= min) && value <= max;
}

/** A flag whose value is a number within limits. */
export const numberFlag = (limits: Limits) =>
  Flags.custom<number>({
    helpValue: 'N',
    parse: async (input, _context, { name }) => {
      const value = input.trim() === '' ? NaN : Number(input);
      if (isWithin(value, limits)) return value;
      throw new Errors.CLIError(`--${name} is "${input}"; it must be ${phrase(limits)}.`);
    },
  });

export const countFlag = numberFlag({ integer: true, min: 1 });

/** `--set a.b=c`, any number of times. */
export const setFlag = Flags.custom({
  description: 'Change a setting of the configuration, e.g. train.steps=500; may be repeated.',
  helpValue: 'KEY=VALUE',
  multiple: true,
  multipleNonGreedy: true,
});

export const backendFlag = Flags.custom({
  description: 'Compute with this backend instead of the configured one.',
  helpValue: 'NAME',
});

export const bestFlag = () =>
  Flags.boolean({ description: 'Take the checkpoint of lowest evaluation loss instead of the newest.' });
