import type { Params, Rng } from '../plugin/types.ts';
import { at, linear, tf } from '../tensor/index.ts';

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

/** The affine map of `initLinear`. */
export const applyLinear = (params: Params, path: string, x: tf.Tensor): tf.Tensor =>
  linear(x, at(params, `${path}.weight`), params[`${path}.bias`]);
