import {
  at,
  type Batch,
  type BuildContexts,
  defineObjective,
  embedding,
  type ForwardContext,
  type HostBatch,
  labelsOfView,
  linear,
  LlmxError,
  type Model,
  type Objective,
  type Params,
  rmsNorm,
  type Rng,
  tf,
  z,
} from '@llmx/core';

import { blockHeads, type Head, headContext, initHeads, ownParams, remembered, selected } from './heads.ts';
import { type LossArguments, type Losses, lossesOf, type Prediction } from './losses.ts';
import { countTargets, lossOptions, selectionSchema, type Weighting, weightingOf } from './options.ts';
import { scoringParams } from './unembedding.ts';

const EMBEDDING = 'embedding.tokens';

const config = z.strictObject({
  tokens: z.int().min(1).default(2).describe('Tokens that every position predicts, the next one included.'),
  block: selectionSchema.default('attention').describe('Block of each module: its name or { name, ...options }.'),
  ...lossOptions,
  weights: lossOptions.weights.default(0.3),
});
type Config = z.output<typeof config>;

/** The token `ahead` positions after each one, int32 [batch, time]; 0 where neither window nor labels hold it. */
function tokensAhead({ tokens, labels }: Batch, ahead: number): tf.Tensor {
  const [batch, time] = tokens.shape as [number, number];
  const within = tf.slice(tokens, [0, ahead], [batch, time - ahead]);
  const beyond = tf.slice(labelsOfView(labels, ahead - 1), [0, time - ahead], [batch, ahead]);
  return tf.concat([within, tf.maximum(beyond, tf.scalar(0, 'int32'))], 1);
}

/** The model's token embedding, float32 [vocabSize, dModel]. */
function tokenEmbedding({ vocabSize, dModel }: Model, params: Params): tf.Tensor {
  const table = params[EMBEDDING];
  if (table !== undefined && table.shape.join() === [vocabSize, dModel].join()) return table;
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
class Module {
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
    const token = rmsNorm(embedded, at(params, 'tokenNorm.weight'));
    const state = rmsNorm(x, at(params, 'stateNorm.weight'));
    // Two products instead of one of both side by side: joining them, and parting the gradient, would be copies.
    const residual = linear(state, at(params, 'stateProjection.weight'));
    const projected = linear(token, at(params, 'tokenProjection.weight'), undefined, { residual });
    return this.#block.forward(params, projected, context);
  }

  /** Hidden states for the unembedding. */
  finish(params: Params, x: tf.Tensor): tf.Tensor {
    return rmsNorm(x, at(params, 'norm.weight'));
  }
}

/**
 * Chained modules (DeepSeek-V3, section 2.2): the model predicts the next token, and module k the token after that, from the
 * states of module k - 1 and the token that this one was to predict. Embedding and unembedding are the model's.
 *
 *     h(k, t) = block(project([norm(h(k - 1, t)), norm(embed(token t + k))]))
 *     p(k)(token t + k + 1) = softmax(unembed(norm(h(k, t))))
 *
 * The modules' activations are kept for the backward pass, their logits are not.
 */
class MultiTokenSequential implements Objective {
  readonly lookahead: number;
  readonly #weighting: Weighting;
  readonly #modulesOf: (model: Model) => readonly Module[];

  constructor(options: Config, context: BuildContexts['objective']) {
    const { tokens, block } = options;
    this.lookahead = tokens;
    this.#weighting = weightingOf(options, context.contextLength);
    this.#modulesOf = remembered((model) =>
      blockHeads(selected(block), tokens - 1, model, context).map((head) => new Module(head, model.dModel)),
    );
  }

  init(rng: Rng, model: Model): Params {
    return initHeads(this.#modulesOf(model), rng);
  }

  targets(batch: HostBatch): Record<string, number> {
    return countTargets(batch, this.#weighting);
  }

  loss({ model, params, batch, context }: LossArguments): Losses {
    const scoring = scoringParams(model, params);
    const nextToken = model.hidden(params, batch, context);
    let x = nextToken;
    const further = this.#modulesOf(model).map((step, index): Prediction => {
      const ahead = index + 1;
      const own = ownParams(params, ahead);
      const before = x;
      x = tf.tidy(() => {
        const embedded = embedding(tokenEmbedding(model, params), tokensAhead(batch, ahead));
        return step.forward(own, before, embedded, headContext(context, batch, ahead));
      });
      const states = x;
      return { inputs: [states, at(own, 'norm.weight')], states: () => step.finish(own, states) };
    });
    return lossesOf({ model, params, batch, scoring }, nextToken, further, this.#weighting);
  }
}

export const multiTokenSequential = defineObjective({
  name: 'multi-token-sequential',
  summary: 'Chained modules that each predict one more token ahead, seeing the tokens in between (DeepSeek-V3).',
  paper: 'https://arxiv.org/abs/2412.19437',
  config,
  build: (options, context) => new MultiTokenSequential(options, context),
});
