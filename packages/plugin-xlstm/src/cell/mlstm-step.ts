import { matmul, tf, unrecorded } from '@llmx/core';

import { type ChunkResult, logSigmoid, type MlstmInputs, type MlstmState } from './mlstm-chunk.ts';

/**
 * The mLSTM at one position, as the recurrence (Beck et al., arXiv 2405.04517), with k' = k / sqrt(keySize):
 *
 *     m' = max(log sigmoid(f) + m, i)
 *     C' = exp(log sigmoid(f) + m - m') C + exp(i - m') k' v^T, and n' alike with k'
 *     h  = C'^T q / (max(|q . n'|, exp(-m')) + epsilon)
 *
 * @param inputs of one position: time is 1
 */
export function mlstmStep(inputs: MlstmInputs, state: MlstmState, epsilon: number): ChunkResult {
  const { query, key, value, inputGate, forgetGate } = inputs; // gates [batch, heads, 1]
  const kept = tf.add(logSigmoid(forgetGate), tf.expandDims(state.maximum, 2));
  const maximum = unrecorded(() => tf.maximum(kept, inputGate));
  const keep = tf.exp(tf.sub(kept, maximum));
  const add = tf.exp(tf.sub(inputGate, maximum));
  const weighted = tf.mul(key, tf.mul(tf.expandDims(add, 3), 1 / Math.sqrt(key.shape[3]!)));
  const written = matmul(weighted, value, { transposeA: true });
  const memory = tf.add(tf.mul(tf.expandDims(keep, 3), state.memory), written);
  const normalizer = tf.add(tf.mul(keep, state.normalizer), tf.squeeze(weighted, [2]));
  const norm = matmul(query, tf.expandDims(normalizer, 3)); // [batch, heads, 1, 1]
  const floor = unrecorded(() => tf.exp(tf.neg(tf.expandDims(maximum, 3))));
  const h = tf.div(matmul(query, memory), tf.add(tf.maximum(tf.abs(norm), floor), epsilon));
  return { h, state: { memory, normalizer, maximum: unrecorded(() => tf.squeeze(maximum, [2])) } };
}
