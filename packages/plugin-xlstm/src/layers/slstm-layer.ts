import { at, dims, type Params, silu, tf } from '@llmx/core';

import { type SlstmInputs, slstmScan, slstmScanWithState } from '../cell/slstm.ts';
import { convolution, convolutionStep } from './convolution.ts';
import { headwise } from './headwise.ts';
import { headNorm } from './norm.ts';

/** Constant in size: y, c, n and m of the cell, [4, batch, dModel], and the last inputs of the convolution. */
export interface SlstmLayerState {
  readonly cell: tf.Tensor;
  /** float32 [batch, taps - 1, dModel]. */
  readonly convolution: tf.Tensor;
}

/**
 * The sLSTM layer (Beck et al. 2024, figure 10 without its feed-forward part): convolution, gates, scan over time.
 *
 * @param x float32 [batch, time, dModel], normed
 * @returns float32 [batch, time, dModel]
 */
export function slstmLayer(
  params: Params,
  x: tf.Tensor,
  { segments }: { readonly segments?: tf.Tensor | undefined },
): tf.Tensor {
  const mixed = silu(convolution(params, 'convolution', x, segments));
  return normed(params, slstmScan(cellInputs(params, x, mixed), { segments }));
}

/** The layer at new positions. */
export function slstmLayerStep(
  params: Params,
  x: tf.Tensor,
  before: SlstmLayerState,
): { y: tf.Tensor; state: SlstmLayerState } {
  const convolved = convolutionStep(params, 'convolution', x, before.convolution);
  const inputs = cellInputs(params, x, silu(convolved.y));
  const { y, state } = slstmScanWithState(inputs, { state: before.cell });
  return { y: normed(params, y), state: { cell: state, convolution: convolved.past } };
}

/** The input and forget gates see the convolution, the cell input and the output gate do not. */
function cellInputs(params: Params, x: tf.Tensor, mixed: tf.Tensor): SlstmInputs {
  const project = (name: string, from: tf.Tensor) => headwise(from, at(params, `${name}.weight`));
  return {
    inputGate: project('inputGate', mixed),
    forgetGate: project('forgetGate', mixed),
    cellInput: project('cellInput', x),
    outputGate: project('outputGate', x),
    recurrent: at(params, 'recurrent.weight'),
    bias: at(params, 'recurrent.bias'),
  };
}

/** The norm of each head's outputs. */
function normed(params: Params, y: tf.Tensor): tf.Tensor {
  const [batch, time] = dims(y, 3);
  const [heads, size] = dims(at(params, 'recurrent.weight'), 3);
  return headNorm(params, 'headNorm', tf.reshape(y, [batch, time, heads, size]));
}
