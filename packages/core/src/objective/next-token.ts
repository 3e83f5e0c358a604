import { z } from 'zod';

import { defineObjective } from '../plugin/define.ts';
import type { Model, Objective, Params } from '../plugin/types.ts';
import { dims, tf } from '../tensor/index.ts';

/**
 * Cross-entropy in nats per position, float32 [batch, time], 0 where a label is -1: the model's own form where it has
 * one, else from its logits.
 *
 * @param hidden float32 [batch, time, dModel]
 * @param labels int32 [batch, time]
 */
export function crossEntropy(model: Model, params: Params, hidden: tf.Tensor, labels: tf.Tensor): tf.Tensor {
  if (model.crossEntropy !== undefined) return model.crossEntropy(params, hidden, labels);
  const logits = model.logits(params, hidden);
  const chosen = tf.cast(tf.oneHot(labels, model.vocabSize, 1, 0, 'int32'), 'float32');
  const isTarget = tf.cast(tf.greaterEqual(labels, 0), 'float32');
  return tf.mul(tf.sub(tf.logSumExp(logits, -1), tf.sum(tf.mul(logits, chosen), -1)), isTarget);
}

/** Labels of one view, int32 [batch, time], out of int32 [batch, time, lookahead]. */
export function labelsOfView(labels: tf.Tensor, view: number): tf.Tensor {
  const [batch, time] = dims(labels, 3);
  return tf.reshape(tf.slice(labels, [0, 0, view], [batch, time, 1]), [batch, time]);
}

export const nextToken = defineObjective({
  name: 'next-token',
  summary: 'Cross-entropy of the next token, in nats per token.',
  config: z.strictObject({}),
  build: (): Objective => ({
    lookahead: 1,
    targets: ({ labels }) => ({ nextToken: labels.reduce((count, label) => count + (label >= 0 ? 1 : 0), 0) }),
    loss({ model, params, batch, context }) {
      const hidden = model.hidden(params, batch, context);
      const losses = crossEntropy(model, params, hidden, labelsOfView(batch.labels, 0));
      return { terms: { nextToken: { sum: tf.sum(losses), weight: 1 } } };
    },
  }),
});
