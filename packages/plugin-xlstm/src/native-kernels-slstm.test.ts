import {
  describeKernels,
  expectGradient,
  expectLevelsAgree,
  type KernelCase,
  resultsOf,
} from '@llmx/backend-native/testing';
import { test } from 'vitest';

import { kernelLibrary } from './native-kernel-calls.ts';
import { asArguments, documents, of, random } from './testing/kernel-inputs.ts';

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
  const [y, , ...saved] = asArguments(resultsOf(forward, { instructionSet: 'reference' }), forward.outputs);
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

describeKernels(kernelLibrary(), 'the sLSTM in C++', () => {
  for (const [name, sizes] of Object.entries(SLSTM_CASES))
    test(`equals the scalar form: ${name}`, () => {
      const forward = slstmCase(sizes);
      expectLevelsAgree(forward, of(2e-5));
      expectLevelsAgree(slstmGradCase(forward), of(4e-5));
    });

  test('has the gradients that finite differences give', () => {
    const forward = slstmCase({ time: 5, batch: 1, heads: 2, size: 3, state: true, segments: true });
    const backward = slstmGradCase(forward);
    const results = resultsOf(backward, { instructionSet: 'reference' });
    const dy = backward.inputs[0]!.values as Float32Array;
    for (const [index, place] of [0, 1, 2, 3, 4, 5, 7].entries())
      expectGradient(forward, place, dy, results[index]!, of(2e-3));
  });
});
