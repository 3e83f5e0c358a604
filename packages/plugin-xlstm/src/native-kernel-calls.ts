/** How the kernels of kernel-contract.md are called in C++. Imports the backend: loaded where that is the one in use. */
import { locateLibrary, type NativeKernel, requireShape, type TensorInfo } from '@llmx/backend-native';

/** The library of the kernels; undefined where nothing built it and the platform's package is not there. */
export const kernelLibrary = (): string | undefined =>
  locateLibrary({ home: new URL('../', import.meta.url), name: '@llmx/plugin-xlstm', library: 'xlstm-kernels' });

type Inputs = Parameters<NativeKernel>[1];
type Attributes = Parameters<NativeKernel>[2];
type Shape = readonly number[];
type Pattern = readonly (number | undefined)[];

/** Gives inputs of one call, checked: C++ reads memory as it is told. */
interface CheckedInputs {
  /** @throws LlmxError `LLMX_NATIVE_ARGUMENT` */
  get(name: string, shape: Pattern, dtype?: 'float32' | 'int32'): TensorInfo;
  optional(name: string, shape: Pattern, dtype?: 'float32' | 'int32'): TensorInfo | undefined;
  /** Several that are given together or not at all. */
  together(shapes: Readonly<Record<string, Shape>>): (TensorInfo | undefined)[];
}

function checkInputs(kernel: string, inputs: Inputs): CheckedInputs {
  const get: CheckedInputs['get'] = (name, shape, dtype) => requireShape(kernel, name, inputs[name], shape, dtype);
  return {
    get,
    optional: (name, shape, dtype) => (inputs[name] === undefined ? undefined : get(name, shape, dtype)),
    together(shapes) {
      const isGiven = Object.keys(shapes).some((name) => inputs[name] !== undefined);
      return Object.entries(shapes).map(([name, shape]) => (isGiven ? get(name, shape) : undefined));
    },
  };
}

/** Positions between the states that the forward pass keeps: MlstmProblem::window in native/mlstm.h. */
const WINDOW = 1024;
const MAX_CHUNK = 256;

/** The inputs of the mLSTM that both directions share, and the numbers of its kernels. */
function readMlstm(kernel: string, inputs: Inputs, attributes: Attributes) {
  const checked = checkInputs(kernel, inputs);
  const query = checked.get('query', [undefined, undefined, undefined, undefined]);
  const [batch, time, heads, keySize] = query.shape as [number, number, number, number];
  const value = checked.get('value', [batch, time, heads, undefined]);
  const valueSize = value.shape[3]!;
  const perHead: Shape = [batch, time, heads];
  const state = {
    memory: [batch, heads, keySize, valueSize],
    normalizer: [batch, heads, keySize],
    maximum: [batch, heads],
  };
  const { chunk, epsilon, training } = attributes as { chunk: number; epsilon: number; training: boolean };
  const length = Math.min(chunk, MAX_CHUNK);
  const windows = Math.ceil(time / (Math.ceil(WINDOW / length) * length));
  return {
    checked,
    training,
    tensors: [
      query,
      checked.get('key', query.shape),
      value,
      checked.get('inputGate', perHead),
      checked.get('forgetGate', perHead),
    ],
    segments: checked.optional('segments', [batch, time], 'int32'),
    initial: checked.together(state),
    state: Object.values(state),
    perHead,
    /** Of the states before all windows but the first; undefined: there is but one. */
    kept: windows > 1 ? [batch, heads, windows - 1, keySize * valueSize + keySize + 1] : undefined,
    numbers: [batch, time, heads, keySize, valueSize, chunk, epsilon],
  };
}

/** Saves q.n [batch, time, heads], and the states between windows where there are any. */
const mlstm: NativeKernel = (engine, inputs, attributes) => {
  const kernel = 'XlstmMlstmChunkwise';
  const call = readMlstm(kernel, inputs, attributes);
  const results = [call.tensors[2]!.shape, ...call.state].map((shape) => engine.allocate(shape));
  const products = call.training ? engine.allocate(call.perHead) : undefined;
  const states = call.training && call.kept ? engine.allocate(call.kept) : undefined;
  engine.run(kernel, [...call.tensors, call.segments, ...call.initial, ...results, products, states], call.numbers);
  return [...results, ...[products, states].filter((saved) => saved !== undefined)];
};

const mlstmGrad: NativeKernel = (engine, inputs, attributes) => {
  const kernel = 'XlstmMlstmChunkwiseGrad';
  const { checked, tensors, segments, initial, perHead, kept, numbers } = readMlstm(kernel, inputs, attributes);
  const shape = tensors[2]!.shape;
  const [dy, h] = [checked.get('dy', shape), checked.get('h', shape)];
  const saved = [checked.get('saved0', perHead), kept && checked.get('saved1', kept)];
  const gradients = [...tensors, ...initial.slice(0, 2)].map((input) => input && engine.allocate(input.shape));
  engine.run(kernel, [dy, ...tensors, h, segments, ...initial, ...saved, ...gradients], numbers);
  return gradients.filter((gradient) => gradient !== undefined);
};

const GATES = ['inputGate', 'forgetGate', 'cellInput', 'outputGate'];

/** The sizes of a scan: those of [batch, time, width], and the recurrent weights. */
function readSlstm(checked: CheckedInputs, like: TensorInfo) {
  const [batch, time, width] = like.shape as [number, number, number];
  const free = checked.get('recurrent', [undefined, undefined, undefined]);
  const [heads, size] = free.shape as [number, number, number];
  // A width that heads do not divide asks for an impossible shape, and the message says which one was given.
  const recurrent = checked.get('recurrent', [heads, width / heads, 4 * size]);
  return {
    batch,
    time,
    width,
    recurrent,
    segments: checked.optional('segments', [batch, time], 'int32'),
    state: checked.optional('state', [4, batch, width]),
    saved: [
      [batch, time, 4, width],
      [batch, time, 3, width],
    ] as const,
    numbers: [batch, time, heads, size],
  };
}

/** Saves the gates before their nonlinearities [batch, time, 4, width], and c, n and m [batch, time, 3, width]. */
const slstm: NativeKernel = (engine, inputs, attributes) => {
  const kernel = 'XlstmSlstmScan';
  const checked = checkInputs(kernel, inputs);
  const first = checked.get('inputGate', [undefined, undefined, undefined]);
  const gates = GATES.map((name) => checked.get(name, first.shape));
  const { batch, width, recurrent, segments, state, saved, numbers } = readSlstm(checked, first);
  const bias = checked.get('bias', [4 * width]);
  const results = [engine.allocate(first.shape), engine.allocate([4, batch, width])];
  const kept = attributes['training'] === true ? saved.map((shape) => engine.allocate(shape)) : [];
  engine.run(kernel, [...gates, recurrent, bias, segments, state, ...results, ...kept], numbers);
  return [...results, ...kept];
};

const slstmGrad: NativeKernel = (engine, inputs) => {
  const kernel = 'XlstmSlstmScanGrad';
  const checked = checkInputs(kernel, inputs);
  const dy = checked.get('dy', [undefined, undefined, undefined]);
  const { width, recurrent, segments, state, saved, numbers } = readSlstm(checked, dy);
  const y = checked.get('y', dy.shape);
  const kept = saved.map((shape, index) => checked.get(`saved${index}`, shape));
  const shapes = [...GATES.map(() => dy.shape), recurrent.shape, [4 * width], ...(state ? [state.shape] : [])];
  const gradients = shapes.map((shape) => engine.allocate(shape));
  engine.run(kernel, [dy, recurrent, y, segments, state, ...kept, ...gradients], numbers);
  return gradients;
};

/** The matrices of headwise maps, and the numbers of their kernels. */
function readHeadwise(checked: CheckedInputs) {
  const weight = checked.get('weight', [undefined, undefined, undefined]);
  const [blocks, inputs, outputs] = weight.shape as [number, number, number];
  const x = checked.get('x', [undefined, blocks * inputs]);
  const rows = x.shape[0]!;
  return { x, weight, result: [rows, blocks * outputs], numbers: [rows, blocks, inputs, outputs] };
}

const headwise: NativeKernel = (engine, inputs) => {
  const kernel = 'XlstmHeadwise';
  const { x, weight, result, numbers } = readHeadwise(checkInputs(kernel, inputs));
  const y = engine.allocate(result);
  engine.run(kernel, [x, weight, y], numbers);
  return [y];
};

const headwiseGrad: NativeKernel = (engine, inputs) => {
  const kernel = 'XlstmHeadwiseGrad';
  const checked = checkInputs(kernel, inputs);
  const { x, weight, result, numbers } = readHeadwise(checked);
  const dy = checked.get('dy', result);
  const gradients = [x, weight].map(({ shape }) => engine.allocate(shape));
  engine.run(kernel, [dy, x, weight, ...gradients], numbers);
  return gradients;
};

/** The inputs of a gated read, and the numbers of its kernels. */
function readGatedRead(checked: CheckedInputs, attributes: Attributes) {
  const h = checked.get('h', [undefined, undefined, undefined]);
  const features = h.shape.slice(1);
  const rows = [h, checked.get('mixed', h.shape), checked.get('gate', h.shape)];
  const inputs = [...rows, checked.get('weight', features), checked.get('skip', features)];
  return { h, inputs, numbers: [...h.shape, attributes['epsilon'] as number] };
}

const gatedRead: NativeKernel = (engine, given, attributes) => {
  const kernel = 'XlstmGatedRead';
  const { h, inputs, numbers } = readGatedRead(checkInputs(kernel, given), attributes);
  const y = engine.allocate(h.shape);
  engine.run(kernel, [...inputs, y], numbers);
  return [y];
};

const gatedReadGrad: NativeKernel = (engine, given, attributes) => {
  const kernel = 'XlstmGatedReadGrad';
  const checked = checkInputs(kernel, given);
  const { h, inputs, numbers } = readGatedRead(checked, attributes);
  const dy = checked.get('dy', h.shape);
  const gradients = inputs.map(({ shape }) => engine.allocate(shape));
  engine.run(kernel, [dy, ...inputs, ...gradients], numbers);
  return gradients;
};

/** By name; see kernel-contract.md. */
export const nativeKernels: Readonly<Record<string, NativeKernel>> = {
  XlstmMlstmChunkwise: mlstm,
  XlstmMlstmChunkwiseGrad: mlstmGrad,
  XlstmSlstmScan: slstm,
  XlstmSlstmScanGrad: slstmGrad,
  XlstmHeadwise: headwise,
  XlstmHeadwiseGrad: headwiseGrad,
  XlstmGatedRead: gatedRead,
  XlstmGatedReadGrad: gatedReadGrad,
};
