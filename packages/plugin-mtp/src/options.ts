import { durationSchema, type HostBatch, LlmxError, type Progress, stepsOf, z } from '@llmx/core';

const constant = z.number().min(0);

const weight = z.union(
  [
    constant,
    z.strictObject({
      from: constant.describe('At the first step.'),
      to: constant.describe('When `over` has passed, and from then on.'),
      over: durationSchema.default('100%').describe('Steps, tokens or a share of the run; linear.'),
    }),
  ],
  { error: 'expected a number, or { from, to, over }' },
);
/** The weight of a loss: a number, or one that changes over training. */
type Weight = z.output<typeof weight>;

/** A component as a configuration names it. */
export const selectionSchema = z.union([z.string().min(1), z.looseObject({ name: z.string().min(1) })], {
  error: 'expected a name or { name, ...options }',
});

/** Options of both objectives. */
export const lossOptions = {
  weights: z
    .union([weight, z.array(weight).min(1)], {
      error: 'expected a weight (a number, or { from, to, over }), or a list of one weight per token',
    })
    .describe(
      'Weight of each loss, from the next token on: a number, or { from, to, over }, which changes over training; one for all: that of every loss after the first.',
    ),
  normalize: z
    .enum(['tokens', 'heads'])
    .default('tokens')
    .describe('What each sum of losses is divided by: the number of next tokens, or the targets of its own head.'),
};

interface LossOptions {
  readonly tokens: number;
  readonly weights: Weight | readonly Weight[];
  readonly normalize: 'tokens' | 'heads';
}

/** How the losses of the tokens ahead become one. */
export interface Weighting {
  /** Weight of each loss, from the next token on. */
  readonly weights: readonly Weight[];
  readonly normalize: 'tokens' | 'heads';
}

// Array.isArray does not know readonly lists.
const isList = (given: LossOptions['weights']): given is readonly Weight[] => Array.isArray(given);

const invalid = (message: string, hint: string) => new LlmxError('LLMX_CONFIG_INVALID', message, { hint });

/**
 * @throws LlmxError `LLMX_CONFIG_INVALID` where there are more tokens ahead than a window has, or another number of weights
 */
export function weightingOf({ tokens, weights: given, normalize }: LossOptions, contextLength: number): Weighting {
  if (tokens > contextLength)
    throw invalid(
      `objective.tokens ${tokens} is larger than the window of ${contextLength} tokens (model.contextLength), so the last heads would have no targets.`,
      `Set objective.tokens to at most ${contextLength}, or raise model.contextLength.`,
    );
  const weights = isList(given) ? given : Array.from({ length: tokens }, (_, ahead) => (ahead === 0 ? 1 : given));
  if (weights.length !== tokens)
    throw invalid(
      `objective.weights has ${weights.length} ${weights.length === 1 ? 'entry' : 'entries'} for ${tokens} tokens.`,
      'Give one weight per token, the next one first, or one for all after the first.',
    );
  return { weights, normalize };
}

/** A weight at a step: of n steps that it changes over, the first has `from`, and the one after the last has `to`. */
function weightAt(given: Weight, progress: Progress): number {
  if (typeof given === 'number') return given;
  const steps = stepsOf(given.over, progress);
  const done = steps === 0 ? 1 : Math.min(1, (progress.step - 1) / steps);
  return (1 - done) * given.from + done * given.to;
}

/** The weight of each loss at a step, from the next token on. */
export const weightsAt = ({ weights }: Weighting, progress: Progress): number[] =>
  weights.map((given) => weightAt(given, progress));

/** Name of the loss of the token `ahead` + 1 positions ahead. */
export const termName = (ahead: number): string => `head${ahead + 1}`;

/** Targets of one view in a batch. */
const countView = ({ labels, lookahead }: HostBatch, view: number): number => {
  let count = 0;
  for (let index = view; index < labels.length; index += lookahead) if (labels[index]! >= 0) count += 1;
  return count;
};

/** Targets per term: of each head, or those of the next token for the sum of all. */
export function countTargets(batch: HostBatch, { weights, normalize }: Weighting): Record<string, number> {
  if (normalize === 'tokens') return { multiToken: countView(batch, 0) };
  return Object.fromEntries(weights.map((_, view) => [termName(view), countView(batch, view)]));
}
