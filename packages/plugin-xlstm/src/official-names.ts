/**
 * The names and layouts of parameters in the package `xlstm` of the paper's authors (NX-AI/xlstm 2.0) and here, both ways: of its
 * `xLSTMLMModel`, whose norm weights are offsets from 1 and which holds the two halves of an up-projection as one matrix, and of
 * its `xLSTMLarge` with separate weights, which does neither. In both, maps are [outputs, inputs].
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

/** Blocks of xLSTM 7B. */
const LARGE: Readonly<Record<string, Layout>> = {
  'norm_mlstm.weight': same('norm.weight'),
  'mlstm_layer.q.weight': map('query.weight'),
  'mlstm_layer.k.weight': map('key.weight'),
  'mlstm_layer.v.weight': map('value.weight'),
  'mlstm_layer.ogate_preact.weight': map('outputGate.weight'),
  'mlstm_layer.igate_preact.weight': map('inputGate.weight'),
  'mlstm_layer.igate_preact.bias': same('inputGate.bias'),
  'mlstm_layer.fgate_preact.weight': map('forgetGate.weight'),
  'mlstm_layer.fgate_preact.bias': same('forgetGate.bias'),
  'mlstm_layer.multihead_norm.weight': same('headNorm.weight'),
  'mlstm_layer.out_proj.weight': map('down.weight'),
  'norm_ffn.weight': same('feedForward.norm.weight'),
  'ffn.proj_up_gate.weight': map('feedForward.gate.weight'),
  'ffn.proj_up.weight': map('feedForward.up.weight'),
  'ffn.proj_down.weight': map('feedForward.down.weight'),
};

const LARGE_MODEL: Readonly<Record<string, Layout>> = {
  'embedding.weight': same('embedding.tokens'),
  'backbone.out_norm.weight': same('norm.weight'),
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

/** Their parameters of all blocks, by what holds the blocks. */
const STACKS: Readonly<Record<string, Readonly<Record<string, Layout>>>> = {
  xlstm_block_stack: { ...MLSTM, ...SLSTM },
  backbone: LARGE,
};

/** The layout of one of their parameters. */
function layoutOf(theirs: string): Layout {
  const [, stack, index, name] = /^(xlstm_block_stack|backbone)\.blocks\.(\d+)\.(.+)$/u.exec(theirs) ?? [];
  const isOfBlock = stack !== undefined && index !== undefined && name !== undefined;
  const found = isOfBlock ? STACKS[stack]?.[name] : (MODEL[theirs] ?? LARGE_MODEL[theirs]);
  if (found === undefined) throw unknown(theirs);
  return isOfBlock ? inBlock(found, index) : found;
}

type Names = ReadonlyMap<string, string>;

/** Their name for each of our paths. */
const namesByPath = (layouts: Readonly<Record<string, Layout>>): Names =>
  new Map(Object.entries(layouts).flatMap(([theirs, { paths }]) => paths.map((path) => [path, theirs] as const)));

const NAMES = {
  mlstm: namesByPath(MLSTM),
  slstm: namesByPath(SLSTM),
  large: namesByPath(LARGE),
  model: namesByPath(MODEL),
  largeModel: namesByPath(LARGE_MODEL),
};

/** Only the blocks of xLSTM 7B have a feed-forward layer and no recurrent matrix. */
const isLarge = (params: Params): boolean =>
  Object.keys(params).some((path) => {
    const [, block] = /^(blocks\.\d+)\.feedForward\./u.exec(path) ?? [];
    return block !== undefined && !(`${block}.recurrent.weight` in params);
  });

/** The parameter of theirs that each of ours is, or is part of. */
function theirNames(params: Params): string[] {
  const large = isLarge(params);
  return Object.keys(params).map((path) => {
    const [, index, own] = /^blocks\.(\d+)\.(.+)$/u.exec(path) ?? [];
    if (index === undefined || own === undefined) return known(large ? NAMES.largeModel : NAMES.model, path, path);
    if (large) return `backbone.blocks.${index}.${known(NAMES.large, own, path)}`;
    const names = `blocks.${index}.recurrent.weight` in params ? NAMES.slstm : NAMES.mlstm;
    return `xlstm_block_stack.blocks.${index}.${known(names, own, path)}`;
  });
}

function known(names: Names, own: string, path: string): string {
  const name = names.get(own);
  if (name === undefined) throw unknown(path);
  return name;
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
  const names = [...new Set(theirNames(ours))];
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
