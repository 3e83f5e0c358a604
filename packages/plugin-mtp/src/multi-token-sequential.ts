import {
  at,
  type Batch,
  type BuildContexts,
  defineObjective,
  type HostBatch,
  labelsOfView,
  type Model,
  type Objective,
  type Params,
  type Rng,
  tf,
  z,
} from '@llmx/core';

import { headContext, initHeads, ownParams, remembered } from './heads.ts';
import { type LossArguments, type Losses, lossesOf, type Prediction } from './losses.ts';
import { countTargets, lossOptions, type Weighting, weightingOf } from './options.ts';
import { embedTokens, type Module, moduleOptions, sequentialModules } from './modules.ts';
import { scoringParams } from './unembedding.ts';

const config = z.strictObject({
  ...moduleOptions,
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
    this.lookahead = options.tokens;
    this.#weighting = weightingOf(options, context.contextLength);
    this.#modulesOf = remembered((model) => sequentialModules(options, model, context));
  }

  init(rng: Rng, model: Model): Params {
    return initHeads(this.#modulesOf(model), rng);
  }

  targets(batch: HostBatch): Record<string, number> {
    return countTargets(batch, this.#weighting);
  }

  loss({ model, params, batch, context, progress }: LossArguments): Losses {
    const scoring = scoringParams(model, params);
    const nextToken = model.hidden(params, batch, context);
    let x = nextToken;
    const further = this.#modulesOf(model).map((step, index): Prediction => {
      const ahead = index + 1;
      const own = ownParams(params, ahead);
      const before = x;
      x = tf.tidy(() => {
        const embedded = embedTokens(model, params, tokensAhead(batch, ahead));
        return step.forward(own, before, embedded, headContext(context, batch, ahead));
      });
      const states = x;
      return { inputs: [states, at(own, 'norm.weight')], states: () => step.finish(own, states) };
    });
    return lossesOf({ model, params, batch, progress, scoring }, nextToken, further, this.#weighting);
  }
}

export const multiTokenSequential = defineObjective({
  name: 'multi-token-sequential',
  summary: 'Chained modules that each predict one more token ahead, seeing the tokens in between (DeepSeek-V3).',
  paper: 'https://arxiv.org/abs/2412.19437',
  config,
  build: (options, context) => new MultiTokenSequential(options, context),
});
