import { tf } from '@llmx/core';
import { beforeAll, describe, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import type { TensorInfo } from '../engine.ts';
import { expectLikeReference, values } from '../testing/compare.ts';
import { argument, describeEngine } from '../testing/kernels.ts';
import { expectLikeCpu, read, tensor } from '../testing/like-cpu.ts';
import { joined, layoutKernels } from './layout.ts';

const EXACT = { relative: 0, absolute: 0 };

describe('axes of a copy', () => {
  test('are joined where both sides go on', () => {
    const axes = [
      { length: 2, from: 12, to: 12 },
      { length: 1, from: 99, to: 7 },
      { length: 3, from: 4, to: 4 },
      { length: 4, from: 1, to: 1 },
    ];
    expect(joined(axes)).toEqual([{ length: 24, from: 1, to: 1 }]);
    expect(joined([])).toEqual([{ length: 1, from: 1, to: 1 }]);
  });
});

describeEngine('copies', () => {
  const expectCopy = (label: string, size: number, numbers: number[]): void =>
    expectLikeReference('LlmxCopy', label, {
      tensors: () => [argument(values(size, 1)), argument(new Float32Array(size).fill(-1))],
      numbers,
      results: [1],
      tolerance: EXACT,
    });

  test('transposed planes of any size', () => {
    for (const [planes, rows, columns] of [
      [1, 1, 5],
      [1, 16, 16],
      [3, 17, 33],
      [2, 5, 70],
      [1, 3, 4000],
      [1, 4000, 3],
      [1, 200, 130],
    ] as const)
      expectCopy(
        `${planes}x${rows}x${columns}`,
        planes * rows * columns,
        [
          [0, 0, 3],
          [planes, rows * columns, rows * columns],
          [columns, 1, rows],
          [rows, columns, 1],
        ].flat(),
      );
  });

  test('rows, and elements that lie together nowhere', () => {
    expectCopy('one run', 40_000, [3, 5, 1, 39_990, 1, 1]);
    expectCopy('rows', 6000, [1, 2, 2, 70, 80, 75, 66, 1, 1]);
    expectCopy('many axes', 5000, [0, 0, 4, 3, 7, 500, 4, 1100, 120, 5, 40, 20, 6, 1, 1]);
    expectCopy('strided in the source', 4000, [0, 0, 2, 5, 700, 60, 50, 7, 1]);
    expectCopy('strided in both', 4000, [0, 0, 1, 1300, 2, 3]);
  });
});

describeEngine('layout kernels', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  const floats = (...shape: number[]) =>
    tensor(
      values(
        shape.reduce((a, b) => a * b, 1),
        1,
      ),
      ...shape,
    );
  const integers = (...shape: number[]) =>
    tensor(
      Int32Array.from(
        values(
          shape.reduce((a, b) => a * b, 1),
          2,
          -1e9,
          1e9,
        ),
      ),
      ...shape,
    );

  test.each([
    [
      [3, 4],
      [1, 0],
    ],
    [
      [2, 3, 4, 5],
      [0, 2, 1, 3],
    ],
    [
      [2, 3, 4, 5],
      [3, 1, 0, 2],
    ],
    [
      [2, 3, 4, 5],
      [0, 1, 3, 2],
    ],
    [
      [2, 1, 3, 1, 2, 3],
      [5, 4, 3, 2, 1, 0],
    ],
    [
      [2, 3, 2, 3, 2, 3],
      [1, 0, 3, 2, 5, 4],
    ],
    [
      [1, 4],
      [1, 0],
    ],
    [
      [3, 4],
      [0, 1],
    ],
    [
      [0, 4],
      [1, 0],
    ],
    [[], []],
  ])('Transpose of %j by %j', (shape, perm) => {
    expectLikeCpu('Transpose', layoutKernels, { x: floats(...shape) }, { perm }, EXACT);
    expectLikeCpu('Transpose', layoutKernels, { x: integers(...shape) }, { perm }, EXACT);
  });

  test('a transpose that moves nothing shares memory', () => {
    const x = floats(1, 4, 1);
    expect(layoutKernels['Transpose']!(nativeBackend(), { x }, { perm: [1, 0, 2] })[0]!.dataId).toBe(x.dataId);
  });

  test.each([
    [
      [6, 5],
      [1, 2],
      [3, 2],
    ],
    [
      [6, 5],
      [2, 0],
      [3, 5],
    ],
    [
      [6, 5],
      [0, 3],
      [6, 1],
    ],
    [
      [2, 3, 4, 5],
      [1, 0, 1, 2],
      [1, 3, 2, 2],
    ],
    [[4], [1], [-1]],
    [[4], [1], [0]],
  ])('Slice of %j from %j by %j', (shape, begin, size) => {
    expectLikeCpu('Slice', layoutKernels, { x: floats(...shape) }, { begin, size }, EXACT);
  });

  test('a slice beyond the end is refused', () => {
    expect(() =>
      layoutKernels['Slice']!(nativeBackend(), { x: floats(4, 3) }, { begin: [1, 1], size: [4, 1] }),
    ).toThrow('begin[0] + size[0]');
  });

  test('SplitV into one part gives a list, and the gradient of concat is cut from that of its result', () => {
    const parts = tf.split(tf.tensor1d([1, 2, 3]), [3]);
    expect(parts.map((part) => [...part.dataSync()])).toEqual([[1, 2, 3]]);
    const weights = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
    const gradients = tf.grads((a, b) => tf.sum(tf.mul(tf.concat([a, b], 1), weights)))([
      tf.zeros([2, 1]),
      tf.zeros([2, 2]),
    ]);
    expect(gradients.map((gradient) => [...gradient.dataSync()])).toEqual([
      [1, 4],
      [2, 3, 5, 6],
    ]);
  });

  test.each([
    [[7], [3, 0, 4], 0],
    [[2, 6, 3], 3, 1],
    [[5, 4], [1, -1, 2], 0],
    [[3, 4, 5], [2, 3], -1],
    [[0, 4], 2, 1],
  ])('SplitV of %j into %j along %i', (shape, numOrSizeSplits, axis) => {
    expectLikeCpu('SplitV', layoutKernels, { x: floats(...shape) }, { numOrSizeSplits, axis }, EXACT);
    expectLikeCpu('SplitV', layoutKernels, { x: integers(...shape) }, { numOrSizeSplits, axis }, EXACT);
  });

  test.each([
    [
      [
        [2, 3],
        [2, 1],
        [2, 4],
      ],
      1,
    ],
    [
      [
        [2, 3],
        [0, 3],
        [5, 3],
      ],
      0,
    ],
    [
      [
        [2, 3, 2],
        [2, 1, 2],
      ],
      -2,
    ],
    [[[3], [4]], 0],
    [
      [
        [2, 0],
        [2, 0],
      ],
      1,
    ],
  ])('Concat of %j along %i', (shapes, axis) => {
    const given = shapes.map((shape) => floats(...shape)) as unknown as Record<string, TensorInfo>;
    const [y] = layoutKernels['Concat']!(nativeBackend(), given, { axis });
    const cpu = tf.concat(
      shapes.map((shape) =>
        tf.tensor(
          values(
            shape.reduce((a, b) => a * b, 1),
            1,
          ),
          shape,
        ),
      ),
      axis,
    );
    expect(y!.shape).toEqual(cpu.shape);
    expect(read(y!)).toEqual(cpu.dataSync());
  });

  test('Cast rounds towards 0, modulo 2^32, and NaN is 0', () => {
    const x = tensor(
      Float32Array.of(1.9, -1.9, NaN, Infinity, -Infinity, 3e9, -3e9, 1e20, 9.1e18, 4294967296, -0.5, 2147483648),
      12,
    );
    expectLikeCpu('Cast', layoutKernels, { x }, { dtype: 'int32' }, EXACT);
    const [y] = layoutKernels['Cast']!(
      nativeBackend(),
      { x: tensor(Int32Array.of(-3, 0, 16777217), 3) },
      { dtype: 'float32' },
    );
    expect([y!.dtype, ...read(y!)]).toEqual(['float32', -3, 0, 16777216]);
  });

  test('Fill, ZerosLike and OnesLike', () => {
    expectLikeCpu('Fill', layoutKernels, {}, { shape: [3, 7], value: 2.5, dtype: 'float32' }, EXACT);
    expectLikeCpu('Fill', layoutKernels, {}, { shape: [40], value: -7, dtype: 'int32' }, EXACT);
    expectLikeCpu('Fill', layoutKernels, {}, { shape: [2], value: NaN }, EXACT);
    for (const name of ['ZerosLike', 'OnesLike'])
      for (const x of [floats(5, 7), integers(3), floats(0)]) expectLikeCpu(name, layoutKernels, { x }, {}, EXACT);
  });

  test('sums and multiples in the memory of an operand that nobody else refers to', () => {
    const engine = nativeBackend();
    const three = () => tensor(Float32Array.of(1, 2, 3), 3);
    const [sum, shared, x] = [three(), three(), three()];
    engine.incRef(shared.dataId);
    const sums = [sum, shared].map((given) => layoutKernels['LlmxAccumulate']!(engine, { sum: given, x }, {})[0]!);
    expect(sums.map((result) => [...read(result)])).toEqual([
      [2, 4, 6],
      [2, 4, 6],
    ]);
    expect([sums[0]!.dataId === sum.dataId, sums[1]!.dataId === shared.dataId]).toEqual([true, false]);

    const factor = tensor(Float32Array.of(2));
    const kept = layoutKernels['LlmxScale']!(engine, { x, factor }, {})[0]!;
    const taken = layoutKernels['LlmxScale']!(engine, { x, factor }, { overwrite: true })[0]!;
    expect([kept, taken].map((result) => [...read(result)])).toEqual([
      [2, 4, 6],
      [2, 4, 6],
    ]);
    expect([kept.dataId === x.dataId, taken.dataId === x.dataId]).toEqual([false, true]);
  });
});
