import { type BuildContexts, type Model, type Params, type tf, z } from '@llmx/core';

import { blockHeads, type Head, linearHead, selected, withNorm } from './heads.ts';
import { selectionSchema } from './options.ts';
import { hasTrunk, requireTrunk } from './trunk-model.ts';

const LINEAR = 'linear';

/** Options that say what the heads are. */
export const headOptions = {
  tokens: z.int().min(1).default(4).describe('Tokens that every position predicts, the next one included.'),
  head: selectionSchema
    .default('attention')
    .describe('Each further head: a block by its name, { name, ...options }, or linear.'),
  reads: z
    .enum(['hidden', 'trunk'])
    .optional()
    .describe(
      'What heads read: the input of the last block of the model (trunk, as in the paper), or its hidden states; default: trunk where the architecture shows it.',
    ),
};
type HeadOptions = z.output<z.ZodObject<typeof headOptions>>;

/** The heads beyond the next token's. */
export interface ParallelHeads {
  readonly heads: readonly Head[];
  /** What they read. */
  readonly reads: 'hidden' | 'trunk';
  /** Their outputs as hidden states, float32 [batch, time, dModel]. */
  finish(params: Params, x: tf.Tensor): tf.Tensor;
}

/**
 * The heads that options describe, for a model.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`, or that of the block
 */
export function parallelHeads(
  { tokens, head, reads }: HeadOptions,
  model: Model,
  context: BuildContexts['objective'],
): ParallelHeads {
  const chosen = selected(head);
  const isLinear = chosen.name === LINEAR;
  const heads = isLinear
    ? Array.from({ length: tokens - 1 }, () => linearHead(model.dModel))
    : blockHeads(chosen, tokens - 1, model, context);
  if ((reads ?? (hasTrunk(model) ? 'trunk' : 'hidden')) === 'trunk') {
    const trunkModel = requireTrunk(model);
    return { heads, reads: 'trunk', finish: (params, x) => trunkModel.lastNorm(params, x) };
  }
  const normed = isLinear ? heads : heads.map((block) => withNorm(block, model.dModel));
  return { heads: normed, reads: 'hidden', finish: (_params, x) => x };
}
