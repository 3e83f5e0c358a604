import { at, dims, type Params, silu, tf } from '@llmx/core';

import { type SlstmInputs, slstmScan, slstmScanWithState } from '../cell/slstm.ts';
import { convolution, convolutionStep } from './convolution.ts';
import { headwise } from './headwise.ts';
import { headNorm } from './norm.ts';
import { span } from './parts.ts';

/** Constant in size: y, c, n and m of the cell, [4, batch, dModel], and the last inputs of the convolution. */
export interface SlstmLayerState {
  readonly cell: tf.Tensor;
  /** float32 [batch, taps - 1, dModel]. */
  readonly convolution: tf.Tensor;
  /** The way from an earlier state to this one, where it may be taken back. */
  readonly latest?: {
    readonly before: tf.Tensor;
    /** What the gates got at the new positions, without what the parameters add. */
    readonly gates: Gates;
    /** Inputs of the convolution, those before included, float32 [batch, taps - 1 + newTime, dModel]. */
    readonly convolution: tf.Tensor;
  };
}

type Gates = Omit<SlstmInputs, 'recurrent' | 'bias'>;

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
  return normed(params, slstmScan({ ...gateInputs(params, x, mixed), ...mixing(params) }, { segments }));
}

/** The layer at new positions. */
export function slstmLayerStep(
  params: Params,
  x: tf.Tensor,
  before: SlstmLayerState,
  { rewindable }: { readonly rewindable: boolean },
): { y: tf.Tensor; state: SlstmLayerState } {
  const { cell, convolution: past } = before;
  const convolved = convolutionStep(params, 'convolution', x, past);
  const gates = gateInputs(params, x, silu(convolved.y));
  const { y, state } = slstmScanWithState({ ...gates, ...mixing(params) }, { state: cell });
  const latest = rewindable ? { latest: { before: cell, gates, convolution: convolved.all } } : {};
  return { y: normed(params, y), state: { cell: state, convolution: convolved.past, ...latest } };
}

/** The state `count` positions earlier: the scan goes the way from the state before once more, up to there. */
export function slstmLayerRewind(
  params: Params,
  { latest, convolution: past }: Required<SlstmLayerState>,
  count: number,
): SlstmLayerState {
  const { inputGate, forgetGate, cellInput, outputGate } = latest.gates;
  const [, time] = dims(inputGate, 3);
  const first = (input: tf.Tensor) => span(input, 0, time - count);
  const gates = {
    inputGate: first(inputGate),
    forgetGate: first(forgetGate),
    cellInput: first(cellInput),
    outputGate: first(outputGate),
  };
  const { state } = slstmScanWithState({ ...gates, ...mixing(params) }, { state: latest.before });
  const [, known] = dims(past, 3);
  return { cell: state, convolution: span(latest.convolution, time - count, known) };
}

/** The input and forget gates see the convolution, the cell input and the output gate do not. */
function gateInputs(params: Params, x: tf.Tensor, mixed: tf.Tensor): Gates {
  const project = (name: string, from: tf.Tensor) => headwise(from, at(params, `${name}.weight`));
  return {
    inputGate: project('inputGate', mixed),
    forgetGate: project('forgetGate', mixed),
    cellInput: project('cellInput', x),
    outputGate: project('outputGate', x),
  };
}

const mixing = (params: Params): Pick<SlstmInputs, 'recurrent' | 'bias'> => ({
  recurrent: at(params, 'recurrent.weight'),
  bias: at(params, 'recurrent.bias'),
});

/** The norm of each head's outputs. */
function normed(params: Params, y: tf.Tensor): tf.Tensor {
  const [batch, time] = dims(y, 3);
  const [heads, size] = dims(at(params, 'recurrent.weight'), 3);
  return headNorm(params, 'headNorm', tf.reshape(y, [batch, time, heads, size]));
}
