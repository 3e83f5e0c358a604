import {
  type Batch,
  crossEntropy,
  labelsOfView,
  type Model,
  type Objective,
  type Params,
  type Progress,
  tf,
  unrecorded,
} from '@llmx/core';

import { termName, type Weighting, weightsAt } from './options.ts';
import { type Stage, stagedSum } from './staged-sum.ts';
import { acceptance, lossSums, rowsAt, samplePositions } from './statistics.ts';

export type LossArguments = Parameters<Objective['loss']>[0];
export type Losses = ReturnType<Objective['loss']>;

/** One of the tokens ahead: where its hidden states come from. */
export interface Prediction {
  /** The float32 tensors that they are computed from. */
  readonly inputs: readonly tf.Tensor[];
  /** Hidden states for the model's unembedding, float32 [batch, time, dModel]. */
  states(): tf.Tensor;
}

interface Setting {
  readonly model: Model;
  readonly params: Params;
  readonly batch: Batch;
  readonly progress: Progress;
  /** What scoring hidden states depends on besides them. */
  readonly scoring: readonly tf.Tensor[];
}

type Kept = { readonly sum: tf.Tensor; readonly rows: tf.Tensor };

/** Loss of one prediction, and its hidden states where statistics want them. */
function stageOf(
  { model, params, batch, scoring }: Setting,
  { inputs, states }: Prediction,
  view: number,
  { weight, sample }: { weight: number; sample: readonly number[] },
): Stage<Kept> {
  return {
    inputs: [...new Set([...inputs, ...scoring])],
    run() {
      const x = states();
      const sum = tf.sum(crossEntropy(model, params, x, labelsOfView(batch.labels, view)));
      const kept = unrecorded(() => ({ sum: sum.clone(), rows: rowsAt(x, sample) }));
      return { loss: tf.mul(sum, weight), kept };
    },
  };
}

/**
 * Terms and metrics of an objective: the losses of all predictions, one after another, so that their logits never exist
 * together. The first prediction is the next token, its hidden states are `nextToken`.
 */
export function lossesOf(
  setting: Setting,
  nextToken: tf.Tensor,
  further: readonly Prediction[],
  weighting: Weighting,
): Losses {
  const { batch } = setting;
  const { normalize } = weighting;
  const weights = weightsAt(weighting, setting.progress);
  const predictions = [{ inputs: [nextToken], states: () => nextToken }, ...further];
  const [rows, time] = batch.tokens.shape as [number, number];
  const sample = samplePositions([rows, time], predictions.length);
  const stages = predictions.map((prediction, view) => {
    const weight = normalize === 'tokens' ? weights[view]! : 1;
    return stageOf(setting, prediction, view, { weight, sample });
  });
  const groups = normalize === 'tokens' ? [stages] : stages.map((stage) => [stage]);
  const results = groups.map((group) => stagedSum(group));
  const terms = results.map(({ sum }, index) =>
    normalize === 'tokens' ? ['multiToken', { sum, weight: 1 }] : [termName(index), { sum, weight: weights[index]! }],
  );
  const kept = results.flatMap((result) => result.kept);
  const guesses = kept.slice(1).map((one) => one.rows);
  return {
    terms: Object.fromEntries(terms) as Losses['terms'],
    metrics: {
      ...Object.assign({}, ...kept.map(({ sum }, view) => lossSums(batch, view, sum))),
      ...acceptance(setting, sample, nextToken, guesses),
    },
  };
}
