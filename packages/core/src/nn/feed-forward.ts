import type { Params, Rng } from '../plugin/types.ts';
import { geluFeedForward, swiglu, type tf } from '../tensor/index.ts';
import { affineMap, applyLinear, initLinear } from './linear.ts';

export const ACTIVATIONS = ['gelu', 'swiglu'] as const;

export interface FeedForwardOptions {
  readonly activation: (typeof ACTIVATIONS)[number];
  readonly bias: boolean;
  /** Width of the hidden layer; absent: 4 dModel for gelu, the same number of weights for swiglu. */
  readonly feedForwardSize?: number | undefined;
}

/** 4 dModel; with a gate, which is a third matrix, 8/3 dModel rounded up to a multiple of 8. */
export function hiddenSize(dModel: number, { activation, feedForwardSize }: FeedForwardOptions): number {
  if (feedForwardSize !== undefined) return feedForwardSize;
  return activation === 'swiglu' ? 8 * Math.ceil(dModel / 3) : 4 * dModel;
}

/** Weights `up`, `down` and, with swiglu, `gate`, [inputs, outputs]; `outputStd` is that of `down`. */
export function initFeedForward(
  rng: Rng,
  path: string,
  dModel: number,
  options: FeedForwardOptions,
  { std, outputStd }: { std: number; outputStd: number },
): Params {
  const hidden = hiddenSize(dModel, options);
  const names = options.activation === 'swiglu' ? ['gate', 'up'] : ['up'];
  return {
    ...Object.assign({}, ...names.map((name) => initLinear(rng, `${path}.${name}`, dModel, hidden, std, options.bias))),
    ...initLinear(rng, `${path}.down`, hidden, dModel, outputStd, options.bias),
  };
}

/**
 * down(gelu(up x)), or down(silu(gate x) * up x), plus `residual` where given; float32 [batch, time, dModel] to the same
 * shape.
 */
export function feedForward(
  params: Params,
  path: string,
  x: tf.Tensor,
  { activation }: FeedForwardOptions,
  residual?: tf.Tensor,
): tf.Tensor {
  const [up, down] = [affineMap(params, `${path}.up`), affineMap(params, `${path}.down`)];
  if (activation === 'gelu') return geluFeedForward(x, up, down, residual);
  const half = (name: string) => applyLinear(params, `${path}.${name}`, x, { rounded: true });
  const hidden = swiglu(half('gate'), half('up'));
  return applyLinear(params, `${path}.down`, hidden, { residual });
}
