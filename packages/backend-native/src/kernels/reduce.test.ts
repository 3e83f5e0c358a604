import { tf } from '@llmx/core';
import { beforeAll, describe, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectLikeReference, LENGTHS, values } from '../testing/compare.ts';
import { argument, describeEngine } from '../testing/kernels.ts';
import { expectLikeCpu, read, tensor } from '../testing/like-cpu.ts';
import { aroundAxes, reduceKernels } from './reduce.ts';

const REDUCTIONS = { sum: 0, largest: 1, smallest: 2 } as const;

function expectReduction(
  which: keyof typeof REDUCTIONS,
  [outer, count, inner]: [number, number, number],
  x: Float32Array,
): void {
  expectLikeReference('LlmxReduce', `${which} ${outer}x${count}x${inner}`, {
    tensors: () => [argument(x), argument(new Float32Array(outer * inner).fill(NaN))],
    numbers: [REDUCTIONS[which], outer, count, inner, 0.5],
    results: [1],
    tolerance: which === 'sum' ? { absolute: 1e-4 } : { absolute: 0, relative: 0 },
  });
}

describe('axes', () => {
  test('that lie side by side are one', () => {
    expect(aroundAxes([2, 3, 4, 5], [2, 1])).toEqual([2, 12, 5]);
    expect(aroundAxes([2, 3], [])).toEqual([6, 1, 1]);
    expect(aroundAxes([2, 3, 4], [0, 2])).toBeUndefined();
  });
});

describeEngine('reductions', () => {
  test.each(Object.keys(REDUCTIONS) as (keyof typeof REDUCTIONS)[])('%s', (which) => {
    const lengths = LENGTHS.filter((length) => length > 0);
    for (const count of lengths) {
      for (const outer of [1, 3]) expectReduction(which, [outer, count, 1], values(outer * count, count));
      for (const inner of [2, 33]) expectReduction(which, [2, count, inner], values(2 * count * inner, count));
    }
    expectReduction(which, [1, 200_000, 1], values(200_000, 1));
    expectReduction(which, [1, 300, 1200], values(360_000, 1));
  });

  test.each(Object.keys(REDUCTIONS) as (keyof typeof REDUCTIONS)[])('%s of NaN and infinities', (which) => {
    for (const position of [0, 5, 63, 90, 99])
      for (const value of [NaN, Infinity, -Infinity]) {
        const x = values(300, 1).with(100 + position, value);
        expectReduction(which, [3, 100, 1], x);
        expectReduction(which, [1, 60, 5], x);
      }
    expectReduction(which, [1, 40, 1], new Float32Array(40).fill(-Infinity));
  });

  test('the sum of squares', () => {
    for (const length of [...LENGTHS, 5000, 150_001])
      expectLikeReference('LlmxSumOfSquares', `${length}`, {
        tensors: () => [argument(values(length, 1)), argument(new Float32Array(1).fill(NaN))],
        results: [1],
      });
  });
});

describeEngine('reductions as kernels', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  test.each(['Sum', 'Mean', 'Max', 'Min'])('%s along any axes', (name) => {
    const x = tensor(values(2 * 3 * 4 * 5, 1), 2, 3, 4, 5);
    for (const axes of [[3], [2, 3], [0], [0, 1], [1, 2], [0, 2], [0, 1, 2, 3], -1, []])
      for (const keepDims of [false, true]) {
        const attributes = name === 'Max' ? { reductionIndices: axes, keepDims } : { axis: axes, keepDims };
        expectLikeCpu(name, reduceKernels, { x }, attributes, { relative: 2e-6, absolute: 2e-6 });
      }
  });

  test('integers and empty tensors are left to the cpu kernels', () => {
    expectLikeCpu('Sum', reduceKernels, { x: tensor(Int32Array.of(1, 2, 3, 4), 2, 2) }, { axis: [1] });
    expectLikeCpu('Mean', reduceKernels, { x: tensor(Int32Array.of(1, 2), 2) }, { axis: [0] });
    expectLikeCpu('Sum', reduceKernels, { x: tensor(new Float32Array(0), 0, 3) }, { axis: [0] });
  });

  test('column sums', () => {
    const engine = nativeBackend();
    const sums = (x: Float32Array, ...shape: number[]) => [
      ...read(reduceKernels['LlmxColumnSums']!(engine, { x: tensor(x, ...shape) }, {})[0]!),
    ];
    expect(sums(Float32Array.of(1, 2, 3, 4, 5, 6), 3, 2)).toEqual([9, 12]);
    expect(sums(new Float32Array(0), 0, 2)).toEqual([0, 0]);
    expect(() => sums(values(3, 1), 3)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: LlmxColumnSums needs x as float32 [any, any], got float32 [3].]`,
    );
  });

  test('the sum of squares of a tensor of any shape', () => {
    const x = tensor(Float32Array.of(1, 2, 3, 4), 2, 1, 2);
    const [sum] = reduceKernels['LlmxSumOfSquares']!(nativeBackend(), { x }, {});
    expect([sum!.shape, ...read(sum!)]).toEqual([[], 30]);
  });
});
