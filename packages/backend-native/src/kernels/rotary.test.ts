import { expect, test } from 'vitest';

import { argument, describeEngine } from '../testing/kernels.ts';
import { expectClose, values } from '../testing/compare.ts';
import {
  expectGradient,
  expectLevelsAgree,
  type KernelCase,
  resultsOf,
  sizeOf,
  withInput,
} from '../testing/kernel-case.ts';
import { rotaryKernels } from './rotary.ts';

function rotaryCase(shape: readonly [number, number, number, number], positionBatch: number, turn = 1): KernelCase {
  const [batch, time, heads, size] = shape;
  const angles = values(positionBatch * time * (size / 2), 2, -10, 10);
  const table = (f: (angle: number) => number) => argument(angles.map(f), positionBatch, time, 1, size / 2);
  return {
    kernel: 'LlmxRotary',
    inputs: [argument(values(sizeOf(shape), 1), ...shape), table(Math.cos), table((angle) => turn * Math.sin(angle))],
    outputs: [shape],
    numbers: [batch, time, heads, size, positionBatch],
  };
}

const TOLERANCE = { relative: 1e-6, absolute: 1e-6 };

describeEngine('rotary in C++', () => {
  for (const shape of [
    [0, 3, 2, 4],
    [1, 1, 1, 2],
    [2, 3, 2, 6],
    [2, 5, 3, 66],
    [3, 300, 2, 64],
  ] as const)
    test(`equals the scalar form: [${shape.join(', ')}]`, () => {
      for (const positionBatch of [1, shape[0]]) expectLevelsAgree(rotaryCase(shape, positionBatch), TOLERANCE);
    });

  test('turned by the negative angle undoes itself', () => {
    const forth = rotaryCase([2, 4, 2, 10], 2);
    const [turned] = resultsOf(forth);
    const [again] = resultsOf(withInput(rotaryCase([2, 4, 2, 10], 2, -1), 0, turned!));
    expectClose(again!, forth.inputs[0]!.values, TOLERANCE);
  });

  test('has the gradient that finite differences give: the rotation back', () => {
    const dy = values(16, 5);
    const [gradient] = resultsOf(withInput(rotaryCase([1, 2, 2, 4], 1, -1), 0, dy), { instructionSet: 'reference' });
    expectGradient(rotaryCase([1, 2, 2, 4], 1), 0, dy, gradient!);
  });

  for (const poison of [NaN, Infinity])
    test(`passes ${poison} on to the pair that holds it`, () => {
      const forward = rotaryCase([1, 3, 2, 40], 1);
      const x = (forward.inputs[0]!.values as Float32Array).with(77, poison);
      expectLevelsAgree(withInput(forward, 0, x), TOLERANCE);
    });
});

test('refuses angles for other positions, and odd sizes', () => {
  const info = (...shape: number[]) => ({ dataId: {}, shape, dtype: 'float32' as const });
  const run = (x: number[], angles: number[]) => () =>
    rotaryKernels['LlmxRotary']!({} as never, { x: info(...x), cos: info(...angles), sin: info(...angles) }, {});
  expect(run([2, 4, 2, 8], [1, 3, 1, 4])).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: LlmxRotary needs cos as float32 [1, 4, 1, 4], got float32 [1, 3, 1, 4].]`,
  );
  expect(run([2, 4, 2, 5], [1, 4, 1, 2])).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: LlmxRotary needs cos as float32 [1, 4, 1, 2.5], got float32 [1, 4, 1, 2].]`,
  );
});
