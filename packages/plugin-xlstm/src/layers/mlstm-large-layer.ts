import { at, dims, expr, fuse, linear, type Params, tf } from '@llmx/core';

import { mlstm, mlstmWithState } from '../cell/mlstm.ts';
import type { MlstmInputs, MlstmState } from '../cell/mlstm-chunk.ts';
import { applyLinear } from './linear.ts';
import { headNorm } from './norm.ts';

const { div, mul, sigmoid, tanh } = expr;

/** Added to variances and mean squares by every norm of the block. */
export const LARGE_EPSILON = 1e-6;

export interface LargeLayerOptions {
  readonly heads: number;
  /** Positions per chunk of the cell. */
  readonly chunk: number;
  /** Bound of both gates before their nonlinearities. */
  readonly gateCap: number;
}

const opened = fuse((gate, h) => mul(sigmoid(gate), h));

/**
 * The mLSTM layer of xLSTM 7B up to its down-projection (Beck et al. 2025, arXiv 2503.13427): plain projections of
 * the input, softly capped gates, cell, and a sigmoid gate on the normed output.
 *
 * @param x float32 [batch, time, dModel], normed
 * @returns float32 [batch, time, dModel]
 */
export function mlstmLargeLayer(
  params: Params,
  x: tf.Tensor,
  { segments, ...options }: LargeLayerOptions & { readonly segments?: tf.Tensor | undefined },
): tf.Tensor {
  return gated(params, mlstm(cellInputs(params, x, options), { chunk: options.chunk, segments }), x);
}

/** The layer at new positions. */
export function mlstmLargeLayerStep(
  params: Params,
  x: tf.Tensor,
  before: MlstmState,
  options: LargeLayerOptions,
): { y: tf.Tensor; state: MlstmState } {
  const { h, state } = mlstmWithState(cellInputs(params, x, options), { chunk: options.chunk, state: before });
  return { y: gated(params, h, x), state };
}

function cellInputs(params: Params, x: tf.Tensor, { heads, gateCap }: LargeLayerOptions): MlstmInputs {
  const [batch, time] = dims(x, 3);
  const project = (name: string) => tf.reshape(applyLinear(params, name, x), [batch, time, heads, -1]);
  const capped = fuse((gate) => mul(gateCap, tanh(div(gate, gateCap))));
  const gate = (name: string) => capped(linear(x, at(params, `${name}.weight`), at(params, `${name}.bias`)));
  return {
    query: project('query'),
    key: project('key'),
    value: project('value'),
    inputGate: gate('inputGate'),
    forgetGate: gate('forgetGate'),
  };
}

/** sigmoid(gate x) * norm(h). */
const gated = (params: Params, h: tf.Tensor, x: tf.Tensor): tf.Tensor =>
  opened(applyLinear(params, 'outputGate', x), headNorm(params, 'headNorm', h, LARGE_EPSILON));
