import {
  type Argument,
  describeKernels,
  expectClose,
  expectGradient,
  expectLevelsAgree,
  type KernelCase,
  resultsOf,
} from '@llmx/backend-native/testing';
import { expect, test } from 'vitest';

import { kernelLibrary } from './native-kernel-calls.ts';
import { asArguments, documents, of, random } from './testing/kernel-inputs.ts';

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
  const [h, , , , ...saved] = asArguments(resultsOf(forward, { instructionSet: 'reference' }), forward.outputs);
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

describeKernels(kernelLibrary(), 'the mLSTM in C++', () => {
  for (const [name, sizes] of Object.entries(MLSTM_CASES))
    test(`equals the scalar form: ${name}`, () => {
      const forward = mlstmCase(sizes);
      expectLevelsAgree(forward, of(2e-5));
      expectLevelsAgree(mlstmGradCase(forward), of(4e-5));
    });

  test('stays exact at gates that would overflow', () => {
    const forward = mlstmCase({ time: 130, gates: [-20, 30, -20, 20], state: true, segments: true });
    expectLevelsAgree(forward, of(2e-4));
    expectLevelsAgree(mlstmGradCase(forward), of(4e-4));
  });

  test('takes gates of -infinity for doors that are shut', () => {
    const forward = mlstmCase({ time: 90, state: true });
    const shut = (index: number, places: readonly number[]): Argument => {
      const gate = forward.inputs[index]!;
      return { ...gate, values: gate.values.map((x, at) => (places.includes(at) ? -Infinity : x)) as Float32Array };
    };
    const inputs = forward.inputs.with(3, shut(3, [0, 1, 9, 60])).with(4, shut(4, [2, 41, 42, 43]));
    const backward = mlstmGradCase({ ...forward, inputs });
    expectLevelsAgree({ ...forward, inputs }, of(2e-5));
    expectLevelsAgree(backward, of(4e-5));
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
    expectClose(h, expected!, of(1e-5), 'h');
    last.forEach((values, index) => expectClose(state[index]!.values, values, of(1e-5), `state ${index}`));
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
    const results = resultsOf(backward, { instructionSet: 'reference' });
    const places = [0, 1, 2, 3, 4, 6, 7];
    const dy = backward.inputs[0]!.values as Float32Array;
    for (const [index, place] of places.entries()) expectGradient(forward, place, dy, results[index]!, of(2e-3));
  });
});
