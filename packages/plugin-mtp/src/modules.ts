import {
  at,
  type BuildContexts,
  embedding,
  type ForwardContext,
  linear,
  LlmxError,
  type Model,
  type Params,
  rmsNorm,
  type Rng,
  type StateTree,
  tf,
  z,
} from '@llmx/core';

import { blockHeads, type Head, selected, type Stepped } from './heads.ts';
import { selectionSchema } from './options.ts';

const EMBEDDING = 'embedding.tokens';

/** Options that say what the modules are. */
export const moduleOptions = {
  tokens: z.int().min(1).default(2).describe('Tokens that every position predicts, the next one included.'),
  block: selectionSchema.default('attention').describe('Block of each module: its name or { name, ...options }.'),
};

/**
 * The model's embedding of tokens, int32 [batch, time]: float32 [batch, time, dModel].
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID` where the model has none by the usual name
 */
export function embedTokens({ vocabSize, dModel }: Model, params: Params, tokens: tf.Tensor): tf.Tensor {
  const table = params[EMBEDDING];
  if (table !== undefined && table.shape.join() === [vocabSize, dModel].join()) return embedding(table, tokens);
  throw new LlmxError(
    'LLMX_CONFIG_INVALID',
    `The objective multi-token-sequential embeds tokens with the parameter "${EMBEDDING}" of the model, which this architecture does not have as [${vocabSize}, ${dModel}].`,
    { hint: 'Use the architecture decoder, or the objective multi-token.' },
  );
}

/**
 * A module: the states of the one before it and the embedding of the next token, each normed, side by side, projected to the
 * hidden size (by a matrix whose halves are `stateProjection` and `tokenProjection`), through a block.
 */
export class Module {
  readonly #block: Head;
  readonly #dModel: number;

  constructor(block: Head, dModel: number) {
    this.#block = block;
    this.#dModel = dModel;
  }

  init(rng: Rng): Params {
    const size = this.#dModel;
    return {
      'stateNorm.weight': tf.ones([size]),
      'tokenNorm.weight': tf.ones([size]),
      ...this.#initProjection(rng, 'stateProjection.weight'),
      ...this.#initProjection(rng, 'tokenProjection.weight'),
      ...this.#block.init(rng),
      'norm.weight': tf.ones([size]),
    };
  }

  /** Both together keep the size of what the norms give. */
  #initProjection(rng: Rng, path: string): Params {
    return { [path]: rng.normal(path, [this.#dModel, this.#dModel], 1 / Math.sqrt(2 * this.#dModel)) };
  }

  /** States for the next module, float32 [batch, time, dModel]. */
  forward(params: Params, x: tf.Tensor, embedded: tf.Tensor, context: ForwardContext): tf.Tensor {
    return this.#block.forward(params, this.#project(params, x, embedded), context);
  }

  initialState(): StateTree {
    return this.#block.initialState();
  }

  /** `forward` at new positions, the first of which is `position`; the state forgets the last `guessed` of them. */
  step(
    params: Params,
    [x, embedded]: readonly [tf.Tensor, tf.Tensor],
    state: StateTree,
    { position, guessed }: { readonly position: number; readonly guessed: number },
  ): Stepped {
    return this.#block.step(params, this.#project(params, x, embedded), state, position, guessed);
  }

  #project(params: Params, x: tf.Tensor, embedded: tf.Tensor): tf.Tensor {
    const token = rmsNorm(embedded, at(params, 'tokenNorm.weight'));
    const state = rmsNorm(x, at(params, 'stateNorm.weight'));
    // Two products instead of one of both side by side: joining them, and parting the gradient, would be copies.
    const residual = linear(state, at(params, 'stateProjection.weight'));
    return linear(token, at(params, 'tokenProjection.weight'), undefined, { residual });
  }

  /** Hidden states for the unembedding. */
  finish(params: Params, x: tf.Tensor): tf.Tensor {
    return rmsNorm(x, at(params, 'norm.weight'));
  }
}

/** The modules that options describe, for a model. */
export const sequentialModules = (
  { tokens, block }: z.output<z.ZodObject<typeof moduleOptions>>,
  model: Model,
  context: BuildContexts['objective'],
): Module[] => blockHeads(selected(block), tokens - 1, model, context).map((head) => new Module(head, model.dModel));
