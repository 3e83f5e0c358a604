import { at, linear, type Params, type Rng, tf } from '@llmx/core';

/** A map without bias: `<path>.weight` float32 [inputs, outputs], normal. */
export const initLinear = (rng: Rng, path: string, inputs: number, outputs: number, std: number): Params => ({
  [`${path}.weight`]: rng.normal(`${path}.weight`, [inputs, outputs], std),
});

/** x weight + residual. */
export const applyLinear = (params: Params, path: string, x: tf.Tensor, residual?: tf.Tensor): tf.Tensor =>
  linear(x, at(params, `${path}.weight`), undefined, { residual });

/**
 * The residual branch's last map: x + dropout(y weight), the sum taken within the product where nothing is dropped.
 */
export function endBranch(
  params: Params,
  path: string,
  y: tf.Tensor,
  residual: tf.Tensor,
  drop: ((branch: tf.Tensor) => tf.Tensor) | undefined,
): tf.Tensor {
  if (drop === undefined) return applyLinear(params, path, y, residual);
  return tf.add(residual, drop(applyLinear(params, path, y)));
}
