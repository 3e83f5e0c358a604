import type { Params } from '../plugin/types.ts';
import { at, layerNorm, rmsNorm, type Rounding, tf } from '../tensor/index.ts';

export const NORMS = ['layernorm', 'rmsnorm'] as const;

export interface NormOptions {
  readonly norm: (typeof NORMS)[number];
  readonly normEpsilon: number;
  /** Whether layernorm has a bias; rmsnorm never has. */
  readonly bias: boolean;
}

/** Scale 1, and bias 0 where there is one: `<path>.weight`, `<path>.bias`. */
export function initNorm(path: string, size: number, { norm, bias }: NormOptions): Params {
  const weight = { [`${path}.weight`]: tf.ones([size]) };
  return norm === 'layernorm' && bias ? { ...weight, [`${path}.bias`]: tf.zeros([size]) } : weight;
}

/** The configured norm of the last axis. */
export function applyNorm(
  params: Params,
  path: string,
  x: tf.Tensor,
  { norm, normEpsilon }: NormOptions,
  rounding: Rounding = {},
): tf.Tensor {
  const weight = at(params, `${path}.weight`);
  return norm === 'rmsnorm'
    ? rmsNorm(x, weight, normEpsilon, rounding)
    : layerNorm(x, weight, params[`${path}.bias`], normEpsilon, rounding);
}
