import type { Params, Rng } from '../plugin/types.ts';
import { type AffineMap, at, linear, type LinearOptions, tf } from '../tensor/index.ts';

/** A weight [inputs, outputs] at `<path>.weight`, normal with `std`, and a zero bias where asked for. */
export function initLinear(
  rng: Rng,
  path: string,
  inputs: number,
  outputs: number,
  std: number,
  bias: boolean,
): Params {
  const weight = { [`${path}.weight`]: rng.normal(`${path}.weight`, [inputs, outputs], std) };
  return bias ? { ...weight, [`${path}.bias`]: tf.zeros([outputs]) } : weight;
}

/** Weight and bias of `initLinear`. */
export const affineMap = (params: Params, path: string): AffineMap => ({
  weight: at(params, `${path}.weight`),
  bias: params[`${path}.bias`],
});

/** The affine map of `initLinear`; see `linear`. */
export function applyLinear(params: Params, path: string, x: tf.Tensor, options: LinearOptions = {}): tf.Tensor {
  const { weight, bias } = affineMap(params, path);
  return linear(x, weight, bias, options);
}
