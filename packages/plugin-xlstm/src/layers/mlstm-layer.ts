import { at, dims, linear, type Params, silu, swiglu, tf } from '@llmx/core';

import { mlstm, mlstmWithState } from '../cell/mlstm.ts';
import type { MlstmInputs, MlstmState } from '../cell/mlstm-chunk.ts';
import { convolution, convolutionStep } from './convolution.ts';
import { headwise } from './headwise.ts';
import { applyLinear } from './linear.ts';
import { headNorm } from './norm.ts';
import { joined, parts } from './parts.ts';

interface LayerOptions {
  readonly heads: number;
  /** Positions per chunk of the cell. */
  readonly chunk: number;
}

/** Constant in size: the matrix memory and the last inputs of the convolution. */
export interface MlstmLayerState extends MlstmState {
  /** float32 [batch, taps - 1, inner]. */
  readonly convolution: tf.Tensor;
}

/**
 * The mLSTM layer up to its down-projection (Beck et al. 2024, figure 11): up-projection, convolution, cell, and the gate of
 * the output.
 *
 * @param x float32 [batch, time, dModel], normed
 * @returns float32 [batch, time, inner]
 */
export function mlstmLayer(
  params: Params,
  x: tf.Tensor,
  { heads, chunk, segments }: LayerOptions & { readonly segments?: tf.Tensor | undefined },
): tf.Tensor {
  const up = applyLinear(params, 'up', x);
  const mixed = silu(convolution(params, 'convolution', up, segments));
  const h = mlstm(cellInputs(params, mixed, up, heads), { chunk, segments });
  return gated(params, h, mixed, x);
}

/** The layer at new positions. */
export function mlstmLayerStep(
  params: Params,
  x: tf.Tensor,
  { convolution: past, ...before }: MlstmLayerState,
  { heads, chunk }: LayerOptions,
): { y: tf.Tensor; state: MlstmLayerState } {
  const up = applyLinear(params, 'up', x);
  const convolved = convolutionStep(params, 'convolution', up, past);
  const mixed = silu(convolved.y);
  const { h, state } = mlstmWithState(cellInputs(params, mixed, up, heads), { chunk, state: before });
  return { y: gated(params, h, mixed, x), state: { convolution: convolved.past, ...state } };
}

/** Queries and keys see the convolution, values do not; the gates see all three. */
function cellInputs(params: Params, mixed: tf.Tensor, up: tf.Tensor, heads: number): MlstmInputs {
  const [batch, time, inner] = dims(up, 3);
  const project = (name: string, from: tf.Tensor) => headwise(from, at(params, `${name}.weight`));
  const projected = [project('query', mixed), project('key', mixed), project('value', up)] as const;
  const split = (part: tf.Tensor) => tf.reshape(part, [batch, time, heads, inner / heads]);
  const [query, key, value] = projected;
  const [inputGate, forgetGate] = gates(params, projected);
  return { query: split(query), key: split(key), value: split(value), inputGate, forgetGate };
}

/** Both gates, float32 [batch, time, heads] each, as maps of the three parts side by side. */
function gates(
  params: Params,
  [query, key, value]: readonly [tf.Tensor, tf.Tensor, tf.Tensor],
): [tf.Tensor, tf.Tensor] {
  const both = (leaf: string, axis: number) =>
    joined([at(params, `inputGate.${leaf}`), at(params, `forgetGate.${leaf}`)], axis);
  const [ofQuery, ofKey, ofValue] = parts(both('weight', 1), 3, 0) as [tf.Tensor, tf.Tensor, tf.Tensor];
  const first = linear(query, ofQuery, both('bias', 0));
  const second = linear(key, ofKey, undefined, { residual: first });
  const all = linear(value, ofValue, undefined, { residual: second });
  return parts(all, 2, 2) as [tf.Tensor, tf.Tensor];
}

/** (norm(h) + skip * mixed) * silu(gate x). */
function gated(params: Params, h: tf.Tensor, mixed: tf.Tensor, x: tf.Tensor): tf.Tensor {
  const read = tf.add(headNorm(params, 'headNorm', h), tf.mul(mixed, at(params, 'skip')));
  return swiglu(applyLinear(params, 'gate', x), read);
}
