import type { Hooks } from '@llmx/core';

type Config = Parameters<Hooks['resolveConfig']>[0];

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The name in `name` or `{ name, ...options }`. */
const nameOf = (selection: unknown): unknown => (isRecord(selection) ? selection['name'] : selection);

/**
 * What schedule-free optimizers need of the rest of a configuration: where it does not say otherwise, a constant
 * schedule and no clipping; where it does, one warning that says why this hurts.
 *
 * @returns the configuration to go on with, or nothing where another optimizer is chosen
 */
export function advise(
  config: Config,
  names: readonly string[],
  warn: (message: string) => void,
): Record<string, unknown> | undefined {
  const optimizer = nameOf(config['optimizer']);
  if (typeof optimizer !== 'string' || !names.includes(optimizer)) return undefined;
  const train = isRecord(config['train']) ? config['train'] : {};
  const { schedule = 'constant' } = config;
  const { gradClip = 0 } = train;
  const reasons = [
    ...(nameOf(schedule) === 'constant'
      ? []
      : [`the schedule "${String(nameOf(schedule))}" does what averaging does already (use schedule: constant)`]),
    ...(gradClip === 0
      ? []
      : [`clipping gradients, here at ${String(gradClip)}, hurt in its paper (use train.gradClip: 0)`]),
  ];
  if (reasons.length > 0) warn(`With ${optimizer}, ${reasons.join(', and ')}.`);
  return { ...config, schedule, train: { ...train, gradClip } };
}
