import { type HostBatch, LlmxError, z } from '@llmx/core';

const weight = z.number().min(0);

/** A component as a configuration names it. */
export const selectionSchema = z.union([z.string().min(1), z.looseObject({ name: z.string().min(1) })], {
  error: 'expected a name or { name, ...options }',
});

/** Options of both objectives. */
export const lossOptions = {
  weights: z
    .union([weight, z.array(weight).min(1)], { error: 'expected a number, or a list of one number per token' })
    .describe('Weight of each loss, from the next token on; one number: that of every loss after the first.'),
  normalize: z
    .enum(['tokens', 'heads'])
    .default('tokens')
    .describe('What each sum of losses is divided by: the number of next tokens, or the targets of its own head.'),
};

interface LossOptions {
  readonly tokens: number;
  readonly weights: number | readonly number[];
  readonly normalize: 'tokens' | 'heads';
}

/** How the losses of the tokens ahead become one. */
export interface Weighting {
  /** Weight of each loss, from the next token on. */
  readonly weights: readonly number[];
  readonly normalize: 'tokens' | 'heads';
}

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
  const weights =
    typeof given === 'number' ? Array.from({ length: tokens }, (_, ahead) => (ahead === 0 ? 1 : given)) : given;
  if (weights.length !== tokens)
    throw invalid(
      `objective.weights has ${weights.length} ${weights.length === 1 ? 'entry' : 'entries'} for ${tokens} tokens.`,
      'Give one weight per token, the next one first, or one number for all after the first.',
    );
  return { weights, normalize };
}

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
