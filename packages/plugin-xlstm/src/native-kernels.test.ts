import fs from 'node:fs';

import { tf } from '@llmx/core';
import { TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { beforeAll, describe, expect, test } from 'vitest';

import { KERNEL_LIBRARY, loadNativeKernels, nativeKernels } from './native-kernels.ts';

type Values = Float32Array | Int32Array;
type Argument = { readonly values: Values; readonly shape: readonly number[] } | undefined;

/** A kernel with its inputs, and the shapes of the results that follow them; undefined: left out. */
interface KernelCase {
  readonly kernel: string;
  readonly inputs: readonly Argument[];
  readonly outputs: readonly (readonly number[] | undefined)[];
  readonly numbers: readonly number[];
}

interface RunOptions {
  readonly level?: 'reference' | 'portable' | 'avx2' | 'avx512';
  readonly threads?: number;
  /** Elements by which all memory is moved off its alignment. */
  readonly misalign?: number;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Numbers between `low` and `high`, the same for the same seed. */
function random(seed: number, shape: readonly number[], low = -1, high = 1): NonNullable<Argument> {
  let state = Math.imul(seed, 2654435761) + 1;
  const values = Float32Array.from({ length: sizeOf(shape) }, () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) | 0;
    return low + ((high - low) * ((state ^ (state >>> 13)) >>> 0)) / 2 ** 32;
  });
  return { values, shape };
}

/** Documents of uneven lengths, their numbers neither ascending nor unique. */
const documents = (batch: number, time: number): Argument => ({
  values: Int32Array.from({ length: batch * time }, (_, i) => ((i * i) >> 9) % 3),
  shape: [batch, time],
});

const isThere = TEST_BACKENDS.includes('native') && fs.existsSync(KERNEL_LIBRARY);

/** `describe` that is skipped, with the reason, where there is no engine or no compiler built the kernels. */
function describeKernels(title: string, body: () => void): void {
  /* oxlint-disable vitest/valid-title, vitest/valid-describe-callback -- both are the caller's */
  if (isThere) describe(title, body);
  else test(title, ({ skip }) => skip('there is no C++ engine, or no compiler built the kernels'));
  /* oxlint-enable vitest/valid-title, vitest/valid-describe-callback */
}

const library = async () => (await import('@llmx/backend-native')).nativeBackend().library;
let engine: Awaited<ReturnType<typeof library>>;

beforeAll(async () => {
  if (!isThere) return;
  await useBackend('native');
  await loadNativeKernels();
  engine = await library();
});

/** Memory of the call at hand: nothing else refers to it while C++ works on its addresses. */
const held: Values[] = [];

/** Runs a kernel on copies; gives its results, which are NaN wherever nothing was written. */
function resultsOf(
  theCase: KernelCase,
  { level = 'avx512', threads = 1, misalign = 0 }: RunOptions = {},
): Float32Array[] {
  const place = (values: Values) => {
    const buffer = new ArrayBuffer((values.length + 32) * 4);
    const address = engine.addressOf(buffer);
    const offset = ((64 - (address % 64)) % 64) + misalign * 4;
    const isFloat = values instanceof Float32Array;
    const view = isFloat
      ? new Float32Array(buffer, offset, values.length)
      : new Int32Array(buffer, offset, values.length);
    view.set(values);
    held.push(view);
    return { view, address: address + offset, size: values.length, dtype: isFloat ? 'float32' : 'int32' } as const;
  };
  const results = theCase.outputs.map(
    (shape) => shape && { ...place(new Float32Array(sizeOf(shape)).fill(NaN)), shape },
  );
  const given = theCase.inputs.map((input) => input && { ...place(input.values), shape: input.shape });
  const before = { level: engine.instructionSet, threads: engine.threads };
  engine.setInstructionSet(level);
  engine.setThreads(threads);
  try {
    engine.run(theCase.kernel, [...given, ...results], theCase.numbers);
  } finally {
    engine.setInstructionSet(before.level);
    engine.setThreads(before.threads);
    held.length = 0;
  }
  return results.flatMap((result) => (result ? [result.view as Float32Array] : []));
}

/** Every number is within `tolerance` of the largest. */
function expectNear(actual: Float32Array, expected: ArrayLike<number>, tolerance: number, label: string): void {
  const scale = Array.from(expected).reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  const worst = actual.reduce((most, value, index) => {
    const error = Math.abs(value - expected[index]!);
    return error <= most ? most : error; // NaN stays
  }, 0);
  expect(worst, label).toBeLessThanOrEqual(tolerance * scale + 1e-30);
}

/** All instruction sets agree with the scalar form, each with the same bits on any number of threads, aligned or not. */
function expectLevelsAgree(theCase: KernelCase, tolerance: number): void {
  const expected = resultsOf(theCase, { level: 'reference' });
  for (const level of ['portable', 'avx2', 'avx512'] as const) {
    const results = resultsOf(theCase, { level });
    results.forEach((result, index) =>
      expectNear(result, expected[index]!, tolerance, `${theCase.kernel}, result ${index} at ${level}`),
    );
    expect(resultsOf(theCase, { level, threads: 2, misalign: 1 })).toEqual(results);
    expect(resultsOf(theCase, { level, threads: 3, misalign: 5 })).toEqual(results);
  }
}

/** The scalar form's gradient of sum(dy * first result) by some inputs, against central differences. */
function expectGradients(theCase: KernelCase, dy: Float32Array, gradients: ReadonlyMap<number, Float32Array>): void {
  const step = 1 / 128;
  for (const [index, gradient] of gradients) {
    const input = theCase.inputs[index]!;
    const weighted = (at: number, value: number): number => {
      const changed = { ...input, values: (input.values as Float32Array).with(at, value) };
      const [result] = resultsOf({ ...theCase, inputs: theCase.inputs.with(index, changed) }, { level: 'reference' });
      return result!.reduce((sum, y, place) => sum + y * dy[place]!, 0);
    };
    const estimated = Array.from(
      input.values,
      (value, at) => (weighted(at, value + step) - weighted(at, value - step)) / (2 * step),
    );
    expectNear(gradient, estimated, 2e-3, `gradient of input ${index}`);
  }
}

const asArguments = (values: readonly Float32Array[], shapes: readonly (readonly number[] | undefined)[]) => {
  const rest = [...values];
  return shapes.map((shape) => shape && { values: rest.shift()!, shape });
};

interface MlstmSizes {
  readonly time: number;
  readonly batch?: number;
  readonly heads?: number;
  readonly keySize?: number;
  readonly valueSize?: number;
  readonly chunk?: number;
  readonly segments?: boolean;
  readonly state?: boolean;
  /** Bounds of the input and forget gates. */
  readonly gates?: readonly [number, number, number, number];
  readonly training?: boolean;
}

function mlstmCase(sizes: MlstmSizes): KernelCase {
  const { time, batch = 1, heads = 2, keySize = 8, valueSize = keySize, chunk = 64, training = true } = sizes;
  const [inputLow, inputHigh, forgetLow, forgetHigh] = sizes.gates ?? [-3, 3, -2, 6];
  const [keys, values, gates] = [
    [batch, time, heads, keySize],
    [batch, time, heads, valueSize],
    [batch, time, heads],
  ];
  const states = [
    [batch, heads, keySize, valueSize],
    [batch, heads, keySize],
    [batch, heads],
  ];
  const windows = Math.ceil(time / (Math.ceil(1024 / chunk) * chunk));
  const kept = windows > 1 ? [batch, heads, windows - 1, keySize * valueSize + keySize + 1] : undefined;
  return {
    kernel: 'XlstmMlstmChunkwise',
    inputs: [
      random(1, keys),
      random(2, keys),
      random(3, values),
      random(4, gates, inputLow, inputHigh),
      random(5, gates, forgetLow, forgetHigh),
      sizes.segments ? documents(batch, time) : undefined,
      ...states.map((shape, index) => (sizes.state ? random(6 + index, shape) : undefined)),
    ],
    outputs: [values, ...states, ...(training ? [gates, kept] : [])],
    numbers: [batch, time, heads, keySize, valueSize, chunk, 1e-6],
  };
}

function mlstmGradCase(forward: KernelCase): KernelCase {
  const [h, , , , ...saved] = asArguments(resultsOf(forward, { level: 'reference' }), forward.outputs);
  const [query, key, value, inputGate, forgetGate, segments, ...state] = forward.inputs;
  const given = [query, key, value, inputGate, forgetGate];
  return {
    kernel: 'XlstmMlstmChunkwiseGrad',
    inputs: [random(9, h!.shape), ...given, h, segments, ...state, ...saved],
    outputs: [...given, ...state.slice(0, 2)].map((input) => input?.shape),
    numbers: forward.numbers,
  };
}

const MLSTM_CASES: Readonly<Record<string, MlstmSizes>> = {
  'one position': { time: 1, state: true },
  'odd sizes': { time: 5, batch: 2, heads: 3, keySize: 7, valueSize: 5 },
  'one more than twice the vector': { time: 33, keySize: 33, valueSize: 17 },
  'one more than a chunk': { time: 65, keySize: 16 },
  'a long chunk': { time: 300, keySize: 20, chunk: 200 },
  'short chunks': { time: 40, chunk: 3, state: true },
  'the recurrence': { time: 20, chunk: 1, segments: true },
  'an initial state': { time: 70, batch: 2, state: true },
  documents: { time: 150, batch: 2, segments: true },
  'documents after a state': { time: 100, batch: 2, chunk: 16, segments: true, state: true },
  'several windows': { time: 2100, heads: 1, chunk: 100 },
  'several windows of documents': { time: 1300, batch: 2, heads: 1, chunk: 128, segments: true },
  'a chunk of whole vectors': { time: 130, chunk: 32, keySize: 12 },
  'the longest chunk': { time: 600, heads: 1, chunk: 256 },
  'wide heads': { time: 70, heads: 1, keySize: 100, valueSize: 130, chunk: 32 },
};

describeKernels('the mLSTM in C++', () => {
  for (const [name, sizes] of Object.entries(MLSTM_CASES))
    test(`equals the scalar form: ${name}`, () => {
      const forward = mlstmCase(sizes);
      expectLevelsAgree(forward, 2e-5);
      expectLevelsAgree(mlstmGradCase(forward), 4e-5);
    });

  test('stays exact at gates that would overflow', () => {
    const forward = mlstmCase({ time: 130, gates: [-20, 30, -20, 20], state: true, segments: true });
    expectLevelsAgree(forward, 2e-4);
    expectLevelsAgree(mlstmGradCase(forward), 4e-4);
  });

  test('takes gates of -infinity for doors that are shut', () => {
    const forward = mlstmCase({ time: 90, state: true });
    const shut = (index: number, places: readonly number[]): Argument => {
      const gate = forward.inputs[index]!;
      return { ...gate, values: gate.values.map((x, at) => (places.includes(at) ? -Infinity : x)) as Float32Array };
    };
    const inputs = forward.inputs.with(3, shut(3, [0, 1, 9, 60])).with(4, shut(4, [2, 41, 42, 43]));
    const backward = mlstmGradCase({ ...forward, inputs });
    expectLevelsAgree({ ...forward, inputs }, 2e-5);
    expectLevelsAgree(backward, 4e-5);
    for (const values of resultsOf(backward)) expect(values.every(Number.isFinite)).toBe(true);
  });

  test('goes on from a state as if it had not stopped, step by step too', () => {
    const whole = mlstmCase({ time: 36, keySize: 20, training: false });
    const cut = (start: number, length: number, state: readonly Argument[]): KernelCase => {
      const part = (input: Argument, index: number): Argument => {
        if (index > 4) return undefined;
        const row = input!.values.length / 36;
        const values = input!.values.slice(start * row, (start + length) * row);
        return { values, shape: input!.shape.with(1, length) };
      };
      return {
        ...whole,
        inputs: [...whole.inputs.slice(0, 6).map(part), ...state],
        outputs: [whole.outputs[0]!.with(1, length), ...whole.outputs.slice(1)],
        numbers: whole.numbers.with(1, length),
      };
    };
    const [expected, ...last] = resultsOf(whole);
    let state: readonly Argument[] = [undefined, undefined, undefined];
    const h: number[] = [];
    for (const [start, length] of [
      [0, 20],
      [20, 12],
      [32, 3],
      [35, 1],
    ] as const) {
      const piece = cut(start, length, state);
      const results = asArguments(resultsOf(piece), piece.outputs);
      h.push(...results[0]!.values);
      state = results.slice(1);
    }
    expectNear(Float32Array.from(h), expected!, 1e-5, 'h');
    last.forEach((values, index) => expectNear(state[index]!.values as Float32Array, values, 1e-5, `state ${index}`));
  });

  test('has the gradients that finite differences give', () => {
    const forward = mlstmCase({
      time: 7,
      heads: 1,
      keySize: 3,
      valueSize: 2,
      state: true,
      segments: true,
      gates: [0, 2, -1, 3],
    });
    const backward = mlstmGradCase(forward);
    const results = resultsOf(backward, { level: 'reference' });
    const places = [0, 1, 2, 3, 4, 6, 7];
    const dy = backward.inputs[0]!.values as Float32Array;
    expectGradients(forward, dy, new Map(places.map((place, index) => [place, results[index]!])));
  });
});

interface SlstmSizes {
  readonly time: number;
  readonly batch?: number;
  readonly heads?: number;
  readonly size?: number;
  readonly segments?: boolean;
  readonly state?: boolean;
  readonly scale?: number;
}

function slstmCase({ time, batch = 2, heads = 2, size = 8, segments, state, scale = 2 }: SlstmSizes): KernelCase {
  const width = heads * size;
  const rows = [batch, time, width];
  const states = [4, batch, width];
  const initial = random(8, states);
  // n is positive where a state has been.
  const values = initial.values.map((x, at) => (at >= 2 * batch * width && at < 3 * batch * width ? x + 1.5 : x));
  return {
    kernel: 'XlstmSlstmScan',
    inputs: [
      ...[1, 2, 3, 4].map((seed) => random(seed, rows, -scale, scale)),
      random(5, [heads, size, 4 * size], -1 / Math.sqrt(size), 1 / Math.sqrt(size)),
      random(6, [4 * width]),
      segments ? documents(batch, time) : undefined,
      state ? { values: values as Float32Array, shape: states } : undefined,
    ],
    outputs: [rows, states, [batch, time, 4, width], [batch, time, 3, width]],
    numbers: [batch, time, heads, size],
  };
}

function slstmGradCase(forward: KernelCase): KernelCase {
  const [y, , ...saved] = asArguments(resultsOf(forward, { level: 'reference' }), forward.outputs);
  const [inputGate, , , , recurrent, bias, segments, state] = forward.inputs;
  const rows = inputGate!.shape;
  return {
    kernel: 'XlstmSlstmScanGrad',
    inputs: [random(9, rows), recurrent, y, segments, state, ...saved],
    outputs: [rows, rows, rows, rows, recurrent!.shape, bias!.shape, state?.shape],
    numbers: forward.numbers,
  };
}

const SLSTM_CASES: Readonly<Record<string, SlstmSizes>> = {
  'one position': { time: 1, state: true },
  'odd sizes': { time: 9, batch: 3, heads: 3, size: 7 },
  'one sequence': { time: 20, batch: 1, size: 33 },
  'a group and one more': { time: 12, batch: 9, size: 16 },
  'six sequences': { time: 12, batch: 6, size: 17, state: true },
  'many positions': { time: 200, heads: 1, size: 20 },
  documents: { time: 100, batch: 3, segments: true, state: true },
  'wide gates': { time: 40, scale: 30, segments: true },
};

describeKernels('the sLSTM in C++', () => {
  for (const [name, sizes] of Object.entries(SLSTM_CASES))
    test(`equals the scalar form: ${name}`, () => {
      const forward = slstmCase(sizes);
      expectLevelsAgree(forward, 2e-5);
      expectLevelsAgree(slstmGradCase(forward), 4e-5);
    });

  test('has the gradients that finite differences give', () => {
    const forward = slstmCase({ time: 5, batch: 1, heads: 2, size: 3, state: true, segments: true });
    const backward = slstmGradCase(forward);
    const results = resultsOf(backward, { level: 'reference' });
    const gradients = new Map([0, 1, 2, 3, 4, 5, 7].map((place, index) => [place, results[index]!]));
    expectGradients(forward, backward.inputs[0]!.values as Float32Array, gradients);
  });
});

describeKernels('native kernels, once loaded', () => {
  test('are those of the active backend', async () => {
    await useBackend('native');
    expect(await loadNativeKernels()).toBe(true);
    for (const name of Object.keys(nativeKernels)) expect(tf.getKernel(name, 'native'), name).toBeDefined();
  });
});

describe('native kernels', () => {
  test('refuse shapes that do not belong together', () => {
    const info = (...shape: number[]) => ({ dataId: {}, shape, dtype: 'float32' as const });
    const run = (kernel: string, inputs: Parameters<(typeof nativeKernels)[string]>[1]) => () =>
      nativeKernels[kernel]!({} as never, inputs, { chunk: 64, epsilon: 1e-6, training: false });
    const query = info(2, 5, 4, 8);
    const gate = info(2, 5, 4);
    expect(
      run('XlstmMlstmChunkwise', { query, key: query, value: query, inputGate: gate, forgetGate: info(2, 4, 5) }),
    ).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: XlstmMlstmChunkwise needs forgetGate as float32 [2, 5, 4], got float32 [2, 4, 5].]`,
    );
    const whole = { query, key: query, value: query, inputGate: gate, forgetGate: gate };
    expect(run('XlstmMlstmChunkwise', { ...whole, memory: info(2, 4, 8, 8) })).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: XlstmMlstmChunkwise needs normalizer as float32 [2, 4, 8], got nothing.]`,
    );
    const row = info(2, 5, 12);
    const gates = { inputGate: row, forgetGate: row, cellInput: row, outputGate: row };
    expect(
      run('XlstmSlstmScan', { ...gates, recurrent: info(2, 4, 16), bias: info(48) }),
    ).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: XlstmSlstmScan needs recurrent as float32 [2, 6, 16], got float32 [2, 4, 16].]`,
    );
  });

  test('are left alone on other backends', async () => {
    await useBackend('cpu');
    expect(await loadNativeKernels()).toBe(false);
  });
});
