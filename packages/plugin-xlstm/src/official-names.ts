/**
 * The names and layouts of parameters in the package `xlstm` of the paper's authors (NX-AI/xlstm 2.0, `xLSTMLMModel`) and here,
 * both ways. There maps are [outputs, inputs], norm weights are offsets from 1, and the two halves of an up-projection are one
 * matrix.
 */
import { at, LlmxError, type Params, tf } from '@llmx/core';

/** How one of their tensors lies in ours. */
interface Layout {
  /** Our names; several where theirs holds them as one, joined along axis 0. */
  readonly paths: readonly string[];
  /** Their axes to ours; absent: the same. It is its own inverse. */
  readonly axes?: readonly number[];
  /** Axis of length 1 that theirs has besides, after `axes` were applied backwards. */
  readonly extraAxis?: number;
  /** Ours is theirs plus this. */
  readonly offset?: number;
}

const SWAPPED = [1, 0];
const map = (...paths: string[]): Layout => ({ paths, axes: SWAPPED });
const same = (path: string): Layout => ({ paths: [path] });
const scale = (path: string): Layout => ({ paths: [path], offset: 1 });
const perBlock = (path: string): Layout => ({ paths: [path], axes: [0, 2, 1] });
const taps = (path: string): Layout => ({ paths: [path], axes: SWAPPED, extraAxis: 1 });

const SHARED = {
  'xlstm_norm.weight': scale('norm.weight'),
  'xlstm.conv1d.conv.weight': taps('convolution.weight'),
  'xlstm.conv1d.conv.bias': same('convolution.bias'),
};

const MLSTM: Readonly<Record<string, Layout>> = {
  ...SHARED,
  'xlstm.learnable_skip': same('skip'),
  'xlstm.proj_up.weight': map('up.weight', 'gate.weight'),
  'xlstm.q_proj.weight': perBlock('query.weight'),
  'xlstm.k_proj.weight': perBlock('key.weight'),
  'xlstm.v_proj.weight': perBlock('value.weight'),
  'xlstm.mlstm_cell.igate.weight': map('inputGate.weight'),
  'xlstm.mlstm_cell.igate.bias': same('inputGate.bias'),
  'xlstm.mlstm_cell.fgate.weight': map('forgetGate.weight'),
  'xlstm.mlstm_cell.fgate.bias': same('forgetGate.bias'),
  'xlstm.mlstm_cell.outnorm.weight': scale('headNorm.weight'),
  'xlstm.proj_down.weight': map('down.weight'),
};

const SLSTM: Readonly<Record<string, Layout>> = {
  ...SHARED,
  // Their cell takes what these two make in the other order: `fgate` is what opens its input gate.
  'xlstm.fgate.weight': perBlock('inputGate.weight'),
  'xlstm.igate.weight': perBlock('forgetGate.weight'),
  'xlstm.zgate.weight': perBlock('cellInput.weight'),
  'xlstm.ogate.weight': perBlock('outputGate.weight'),
  'xlstm.slstm_cell._recurrent_kernel_': perBlock('recurrent.weight'),
  'xlstm.slstm_cell._bias_': same('recurrent.bias'),
  'xlstm.group_norm.weight': scale('headNorm.weight'),
  'ffn_norm.weight': scale('feedForward.norm.weight'),
  'ffn.proj_up.weight': map('feedForward.gate.weight', 'feedForward.up.weight'),
  'ffn.proj_down.weight': map('feedForward.down.weight'),
};

const MODEL: Readonly<Record<string, Layout>> = {
  'token_embedding.weight': same('embedding.tokens'),
  'xlstm_block_stack.post_blocks_norm.weight': scale('norm.weight'),
  'lm_head.weight': map('head.weight'),
};

const inBlock = (layout: Layout, index: string): Layout => ({
  ...layout,
  paths: layout.paths.map((path) => `blocks.${index}.${path}`),
});

const unknown = (name: string): LlmxError =>
  new LlmxError('LLMX_PARAM_MISMATCH', `The parameter "${name}" is not one of an xLSTM language model.`, {
    hint: 'Give the parameters of the whole model and nothing else.',
  });

/** The layout of one of their parameters. */
function layoutOf(theirs: string): Layout {
  const block = /^xlstm_block_stack\.blocks\.(\d+)\.(.+)$/u.exec(theirs);
  const found = block === null ? MODEL[theirs] : (MLSTM[block[2]!] ?? SLSTM[block[2]!]);
  if (found === undefined) throw unknown(theirs);
  return block === null ? found : inBlock(found, block[1]!);
}

/** Their name for each of our paths. */
const namesByPath = (layouts: Readonly<Record<string, Layout>>): ReadonlyMap<string, string> =>
  new Map(Object.entries(layouts).flatMap(([theirs, { paths }]) => paths.map((path) => [path, theirs] as const)));

const OF_MODEL = namesByPath(MODEL);
const OF_BLOCK = { mlstm: namesByPath(MLSTM), slstm: namesByPath(SLSTM) };

/** The parameter of theirs that one of ours is, or is part of. */
function theirName(path: string, params: Params): string {
  const block = /^blocks\.(\d+)\.(.+)$/u.exec(path);
  const kind = block !== null && `blocks.${block[1]}.recurrent.weight` in params ? 'slstm' : 'mlstm';
  const name = block === null ? OF_MODEL.get(path) : OF_BLOCK[kind].get(block[2]!);
  if (name === undefined) throw unknown(path);
  return block === null ? name : `xlstm_block_stack.blocks.${block[1]}.${name}`;
}

interface Conversion {
  /** What the tensors are: only parameters have an offset. */
  readonly of?: 'parameters' | 'gradients';
}

const offsetOf = ({ offset = 0 }: Layout, { of = 'parameters' }: Conversion): number =>
  of === 'parameters' ? offset : 0;

/**
 * Our parameters from those of the official package, which are named as in its `state_dict`.
 *
 * @throws LlmxError `LLMX_PARAM_MISMATCH` for a name that is not one of theirs
 */
export function fromOfficial(theirs: Params, conversion: Conversion = {}): Params {
  const entries = Object.entries(theirs).flatMap(([name, tensor]) => {
    const layout = layoutOf(name);
    const tensors = tf.tidy(() => separated(tensor, layout, offsetOf(layout, conversion)));
    return layout.paths.map((path, index): [string, tf.Tensor] => [path, tensors[index]!]);
  });
  return Object.fromEntries(entries);
}

function separated(theirs: tf.Tensor, { paths, axes, extraAxis }: Layout, offset: number): tf.Tensor[] {
  const plain = extraAxis === undefined ? theirs : tf.squeeze(theirs, [extraAxis]);
  const parts = tf.split(plain, paths.length, 0);
  return parts.map((part) => tf.add(axes === undefined ? part : tf.transpose(part, [...axes]), offset));
}

/**
 * The parameters of the official package from ours.
 *
 * @throws LlmxError `LLMX_PARAM_MISMATCH` for a name that is not one of an xLSTM model
 */
export function toOfficial(ours: Params, conversion: Conversion = {}): Params {
  const names = [...new Set(Object.keys(ours).map((path) => theirName(path, ours)))];
  const entries = names.map((name): [string, tf.Tensor] => {
    const layout = layoutOf(name);
    return [name, tf.tidy(() => joined(ours, layout, offsetOf(layout, conversion)))];
  });
  return Object.fromEntries(entries);
}

function joined(ours: Params, { paths, axes, extraAxis }: Layout, offset: number): tf.Tensor {
  const parts = paths.map((path) => (axes === undefined ? at(ours, path) : tf.transpose(at(ours, path), [...axes])));
  const plain = tf.sub(tf.concat(parts, 0), offset);
  return extraAxis === undefined ? plain : tf.expandDims(plain, extraAxis);
}
