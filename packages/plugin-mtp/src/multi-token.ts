import {
  type BuildContexts,
  defineObjective,
  type HostBatch,
  type Model,
  type Objective,
  type Params,
  type Rng,
  z,
} from '@llmx/core';

import { headContext, initHeads, ownParams, remembered } from './heads.ts';
import { type LossArguments, type Losses, lossesOf, type Prediction } from './losses.ts';
import { countTargets, lossOptions, type Weighting, weightingOf } from './options.ts';
import { headOptions, parallelHeads, type ParallelHeads } from './parallel-heads.ts';
import { requireTrunk } from './trunk-model.ts';
import { scoringParams } from './unembedding.ts';

const config = z.strictObject({ ...headOptions, ...lossOptions, weights: lossOptions.weights.default(1) });
type Config = z.output<typeof config>;

/**
 * Parallel heads (Gloeckle et al. 2024): the model itself predicts the next token, and n - 1 heads predict the tokens after
 * it, all with the model's unembedding:
 *
 *     loss = sum over k of weight(k) * (sum over positions of -log p(k)(token t + k | tokens up to t)) / targets
 *
 * Heads that read `trunk` stand beside the model's last block and share the norm after it. Those that read `hidden` stand on
 * the whole model; a block among them has a norm of its own.
 */
class MultiToken implements Objective {
  readonly lookahead: number;
  readonly #weighting: Weighting;
  readonly #headsOf: (model: Model) => ParallelHeads;

  constructor(options: Config, context: BuildContexts['objective']) {
    this.lookahead = options.tokens;
    this.#weighting = weightingOf(options, context.contextLength);
    this.#headsOf = remembered((model) => parallelHeads(options, model, context));
  }

  init(rng: Rng, model: Model): Params {
    return initHeads(this.#headsOf(model).heads, rng);
  }

  targets(batch: HostBatch): Record<string, number> {
    return countTargets(batch, this.#weighting);
  }

  loss({ model, params, batch, context, progress }: LossArguments): Losses {
    const { heads, reads, finish } = this.#headsOf(model);
    const { trunk, hidden } =
      reads === 'trunk'
        ? requireTrunk(model).fork(params, batch, context)
        : { hidden: model.hidden(params, batch, context) };
    const x = trunk ?? hidden;
    const scoring = scoringParams(model, params, finish);
    const further = heads.map((head, index): Prediction => {
      const ahead = index + 1;
      const own = ownParams(params, ahead);
      const circumstances = headContext(context, batch, ahead);
      return {
        inputs: [x, ...Object.values(own)],
        states: () => finish(params, head.forward(own, x, circumstances)),
      };
    });
    return lossesOf({ model, params, batch, progress, scoring }, hidden, further, this.#weighting);
  }
}

export const multiToken = defineObjective({
  name: 'multi-token',
  summary: 'Parallel heads that predict several tokens ahead, with the unembedding of the model.',
  paper: 'https://arxiv.org/abs/2404.19737',
  config,
  build: (options, context) => new MultiToken(options, context),
});
