import { at, dims, linear, type Params, silu, tf } from '@llmx/core';

import { mlstm, mlstmWithState } from '../cell/mlstm.ts';
import type { MlstmInputs, MlstmState } from '../cell/mlstm-chunk.ts';
import { convolution, convolutionStep } from './convolution.ts';
import { gatedRead } from './gated-read.ts';
import { headwise } from './headwise.ts';
import { applyLinear } from './linear.ts';
import { joined, parts, span } from './parts.ts';

interface LayerOptions {
  readonly heads: number;
  /** Positions per chunk of the cell. */
  readonly chunk: number;
}

/** Constant in size: the matrix memory and the last inputs of the convolution. */
export interface MlstmLayerState extends MlstmState {
  /** float32 [batch, taps - 1, inner]. */
  readonly convolution: tf.Tensor;
  /** The way from an earlier state to this one, where it may be taken back. */
  readonly latest?: {
    readonly before: MlstmState;
    readonly inputs: MlstmInputs;
    /** Inputs of the convolution, those before included, float32 [batch, taps - 1 + newTime, inner]. */
    readonly convolution: tf.Tensor;
  };
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
  return gatedRead(params, h, mixed, applyLinear(params, 'gate', x));
}

/** The layer at new positions. */
export function mlstmLayerStep(
  params: Params,
  x: tf.Tensor,
  { convolution: past, memory, normalizer, maximum }: MlstmLayerState,
  { heads, chunk, rewindable }: LayerOptions & { readonly rewindable: boolean },
): { y: tf.Tensor; state: MlstmLayerState } {
  const before = { memory, normalizer, maximum };
  const up = applyLinear(params, 'up', x);
  const convolved = convolutionStep(params, 'convolution', up, past);
  const mixed = silu(convolved.y);
  const inputs = cellInputs(params, mixed, up, heads);
  const { h, state } = mlstmWithState(inputs, { chunk, state: before });
  const latest = rewindable ? { latest: { before, inputs, convolution: convolved.all } } : {};
  return {
    y: gatedRead(params, h, mixed, applyLinear(params, 'gate', x)),
    state: { convolution: convolved.past, ...state, ...latest },
  };
}

/** The state `count` positions earlier: the cell goes the way from the state before once more, up to there. */
export function mlstmLayerRewind(
  { latest, convolution: past }: Required<MlstmLayerState>,
  count: number,
  { chunk }: LayerOptions,
): MlstmLayerState {
  const { before, inputs } = latest;
  const [, time] = dims(inputs.query, 4);
  const first = Object.entries(inputs).map(([name, input]) => [name, span(input as tf.Tensor, 0, time - count)]);
  const { state } = mlstmWithState(Object.fromEntries(first) as MlstmInputs, { chunk, state: before });
  const [, known] = dims(past, 3);
  return { convolution: span(latest.convolution, time - count, known), ...state };
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
