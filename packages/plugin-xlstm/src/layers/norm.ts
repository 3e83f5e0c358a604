import { at, dims, layerNorm, type Params, rmsNorm, tf } from '@llmx/core';

/** Scale 1 at `<path>.weight`. */
export const initNorm = (path: string, width: number): Params => ({ [`${path}.weight`]: tf.ones([width]) });

/** Layer norm without bias, over the last axis. */
export const norm = (params: Params, path: string, x: tf.Tensor): tf.Tensor =>
  layerNorm(x, at(params, `${path}.weight`));

/** Norm by the root mean square, over the last axis. */
export const scaleNorm = (params: Params, path: string, x: tf.Tensor, epsilon: number): tf.Tensor =>
  rmsNorm(x, at(params, `${path}.weight`), epsilon);

/**
 * Layer norm of each head by itself, with a scale per feature.
 *
 * @param x float32 [batch, time, heads, size]
 * @returns float32 [batch, time, heads * size]
 */
export function headNorm(params: Params, path: string, x: tf.Tensor, epsilon?: number): tf.Tensor {
  const [batch, time, heads, size] = dims(x, 4);
  const normed = tf.reshape(layerNorm(x, tf.ones([size]), undefined, epsilon), [batch, time, heads * size]);
  return tf.mul(normed, at(params, `${path}.weight`));
}
