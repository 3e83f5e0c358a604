import { tf } from '@llmx/core';
import { beforeAll, describe, expect, test } from 'vitest';

import { registerNativeBackend } from '../component.ts';
import { SPECIAL, values } from '../testing/compare.ts';
import { describeEngine } from '../testing/kernels.ts';
import { expectLikeCpu, tensor } from '../testing/like-cpu.ts';
import { binaryKernels, rowsAndColumns } from './binary.ts';

const UNARY = ['Abs', 'Erf', 'Exp', 'Log', 'Neg', 'Relu', 'Rsqrt', 'Sigmoid', 'Sqrt', 'Square', 'Tanh'];
const BINARY = ['Add', 'Sub', 'Multiply', 'RealDiv', 'Maximum', 'Minimum', 'SquaredDifference'];

describe('operands as rows and columns', () => {
  test.each([
    [
      [[4, 3], [3]],
      [4, 3],
      {
        rows: 4,
        columns: 3,
        strides: [
          [3, 1],
          [0, 1],
        ],
      },
    ],
    [
      [
        [4, 3],
        [4, 1],
      ],
      [4, 3],
      {
        rows: 4,
        columns: 3,
        strides: [
          [3, 1],
          [1, 0],
        ],
      },
    ],
    [
      [
        [2, 1, 5],
        [2, 3, 1],
      ],
      [2, 3, 5],
      undefined,
    ],
    [
      [
        [2, 1],
        [1, 3],
      ],
      [2, 3],
      {
        rows: 2,
        columns: 3,
        strides: [
          [1, 0],
          [0, 1],
        ],
      },
    ],
    [
      [
        [2, 3, 4],
        [1, 3, 4],
      ],
      [2, 3, 4],
      {
        rows: 2,
        columns: 12,
        strides: [
          [12, 1],
          [0, 1],
        ],
      },
    ],
    [
      [
        [2, 3, 4],
        [2, 1, 4],
      ],
      [2, 3, 4],
      undefined,
    ],
  ])('%j', (shapes, result, expected) => {
    expect(rowsAndColumns(shapes, result)).toEqual(expected);
  });
});

describeEngine('ops of one and two operands', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  // tfjs-backend-cpu's erf is an approximation with an error of 1.5e-7.
  const tolerance = { relative: 1e-6, absolute: 2e-7 };
  const shaped = (seed: number, ...shape: number[]) =>
    tensor(
      values(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
      ...shape,
    );

  test.each(UNARY)('%s', (name) => {
    expectLikeCpu(name, binaryKernels, { x: shaped(1, 3, 7, 5) }, {}, tolerance);
    expectLikeCpu(name, binaryKernels, { x: shaped(1, 0, 3) }, {}, tolerance);
    expectLikeCpu(name, binaryKernels, { x: tensor(Float32Array.from(SPECIAL), SPECIAL.length) }, {}, tolerance);
  });

  test.each(BINARY)('%s, with and without broadcasting', (name) => {
    const shapes = [
      [
        [4, 6],
        [4, 6],
      ],
      [[4, 6], []],
      [[1], [4, 6]],
      [[4, 6], [6]],
      [[6], [4, 6]],
      [
        [4, 6],
        [4, 1],
      ],
      [
        [2, 1, 3],
        [4, 1],
      ],
      [
        [2, 3, 4],
        [2, 1, 4],
      ],
      [[0, 3], [3]],
      [[], []],
    ];
    for (const [left, right] of shapes as [number[], number[]][])
      expectLikeCpu(name, binaryKernels, { a: shaped(1, ...left), b: shaped(2, ...right) }, {}, tolerance);
  });

  test.each(BINARY)('%s of NaN, infinities and zeros', (name) => {
    const pairs = SPECIAL.flatMap((x) => SPECIAL.map((y) => [x, y] as const));
    const [a, b] = [pairs.map(([x]) => x), pairs.map(([, y]) => y)].map((side) =>
      tensor(Float32Array.from(side), pairs.length),
    );
    expectLikeCpu(name, binaryKernels, { a: a!, b: b! }, {}, tolerance);
  });

  test('integers are left to the cpu kernels', () => {
    expectLikeCpu('Add', binaryKernels, {
      a: tensor(Int32Array.of(2 ** 30, 1), 2),
      b: tensor(Int32Array.of(2 ** 30, 2), 2),
    });
    expectLikeCpu('Neg', binaryKernels, { x: tensor(Int32Array.of(3, -4), 2) });
  });
});
