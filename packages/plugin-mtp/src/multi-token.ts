import {
  type BuildContexts,
  defineObjective,
  type HostBatch,
  type Model,
  type Objective,
  type Params,
  type Rng,
  type tf,
  z,
} from '@llmx/core';

import {
  blockHeads,
  type Head,
  headContext,
  initHeads,
  linearHead,
  ownParams,
  remembered,
  selected,
  withNorm,
} from './heads.ts';
import { type LossArguments, type Losses, lossesOf, type Prediction } from './losses.ts';
import { countTargets, lossOptions, selectionSchema, type Weighting, weightingOf } from './options.ts';
import { requireTrunk } from './trunk-model.ts';
import { scoringParams } from './unembedding.ts';

const LINEAR = 'linear';

const config = z.strictObject({
  tokens: z.int().min(1).default(4).describe('Tokens that every position predicts, the next one included.'),
  head: selectionSchema
    .default('attention')
    .describe('Each further head: a block by its name, { name, ...options }, or linear.'),
  reads: z
    .enum(['hidden', 'trunk'])
    .default('hidden')
    .describe('What heads read: the hidden states of the model, or, as in the paper, the input of its last block.'),
  ...lossOptions,
  weights: lossOptions.weights.default(1),
});
type Config = z.output<typeof config>;

/** What further heads read, float32 [batch, time, dModel], and how their outputs become hidden states. */
interface Source {
  readonly x: tf.Tensor;
  readonly nextToken: tf.Tensor;
  finish(params: Params, x: tf.Tensor): tf.Tensor;
}

/**
 * Parallel heads (Gloeckle et al. 2024): the model itself predicts the next token, and n - 1 heads predict the tokens after
 * it, all with the model's unembedding:
 *
 *     loss = sum over k of weight(k) * (sum over positions of -log p(k)(token t + k | tokens up to t)) / targets
 *
 * Heads that read `hidden` stand on the whole model; a block among them has a norm of its own. Those that read `trunk` stand
 * beside the model's last block and share the norm after it.
 */
class MultiToken implements Objective {
  readonly lookahead: number;
  readonly #config: Config;
  readonly #weighting: Weighting;
  readonly #headsOf: (model: Model) => readonly Head[];

  constructor(options: Config, context: BuildContexts['objective']) {
    this.#config = options;
    this.lookahead = options.tokens;
    this.#weighting = weightingOf(options, context.contextLength);
    this.#headsOf = remembered((model) => this.#build(model, context));
  }

  #build(model: Model, context: BuildContexts['objective']): Head[] {
    const { tokens, head, reads } = this.#config;
    if (reads === 'trunk') requireTrunk(model);
    const chosen = selected(head);
    if (chosen.name === LINEAR) return Array.from({ length: tokens - 1 }, () => linearHead(model.dModel));
    const blocks = blockHeads(chosen, tokens - 1, model, context);
    return reads === 'trunk' ? blocks : blocks.map((block) => withNorm(block, model.dModel));
  }

  init(rng: Rng, model: Model): Params {
    return initHeads(this.#headsOf(model), rng);
  }

  targets(batch: HostBatch): Record<string, number> {
    return countTargets(batch, this.#weighting);
  }

  loss(given: LossArguments): Losses {
    const { model, params, batch, context } = given;
    const { x, nextToken, finish } = this.#read(given);
    const scoring = scoringParams(model, params, finish);
    const further = this.#headsOf(model).map((head, index): Prediction => {
      const ahead = index + 1;
      const own = ownParams(params, ahead);
      const circumstances = headContext(context, batch, ahead);
      return {
        inputs: [x, ...Object.values(own)],
        states: () => finish(params, head.forward(own, x, circumstances)),
      };
    });
    return lossesOf({ model, params, batch, scoring }, nextToken, further, this.#weighting);
  }

  #read({ model, params, batch, context }: LossArguments): Source {
    if (this.#config.reads === 'hidden') {
      const x = model.hidden(params, batch, context);
      return { x, nextToken: x, finish: (_params, states) => states };
    }
    const forked = requireTrunk(model);
    const { trunk, hidden } = forked.fork(params, batch, context);
    return { x: trunk, nextToken: hidden, finish: (read, states) => forked.lastNorm(read, states) };
  }
}

export const multiToken = defineObjective({
  name: 'multi-token',
  summary: 'Parallel heads that predict several tokens ahead, with the unembedding of the model.',
  paper: 'https://arxiv.org/abs/2404.19737',
  config,
  build: (options, context) => new MultiToken(options, context),
});
