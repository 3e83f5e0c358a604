import { tf } from '@llmx/core';
import { beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectLikeReference, LENGTHS, values } from '../testing/compare.ts';
import { argument, describeEngine } from '../testing/kernels.ts';
import { expectLikeCpu, tensor } from '../testing/like-cpu.ts';
import { softmaxKernels } from './softmax.ts';

describeEngine('softmax', () => {
  const expectSoftmax = (x: Float32Array, rows: number, width: number): void => {
    for (const logarithm of [0, 1])
      expectLikeReference('LlmxSoftmax', `${rows}x${width} ${logarithm}`, {
        tensors: () => [argument(x, rows, width), argument(new Float32Array(x.length).fill(NaN), rows, width)],
        numbers: [rows, width, logarithm],
        results: [1],
        tolerance: { relative: 1e-5, absolute: logarithm === 1 ? 1e-5 : 1e-36 },
      });
  };

  test('rows of any length', () => {
    for (const width of [...LENGTHS, 5000])
      for (const rows of [0, 1, 7]) expectSoftmax(values(rows * width, width, -20, 20), rows, width);
  });

  test('large, infinite and missing numbers', () => {
    const row = values(20, 1);
    for (const value of [NaN, Infinity, -Infinity, 1e30, -1e30]) expectSoftmax(row.with(7, value), 1, 20);
    expectSoftmax(new Float32Array(20).fill(-Infinity), 1, 20);
    expectSoftmax(row.with(7, -Infinity).with(8, -Infinity), 1, 20);
  });
});

describeEngine('softmax as a kernel', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  test('along the last axis, of any shape', () => {
    expectLikeCpu('Softmax', softmaxKernels, { logits: tensor(values(24, 1), 2, 3, 4) }, { dim: -1 });
    expectLikeCpu('Softmax', softmaxKernels, { logits: tensor(values(5, 1), 5) }, { dim: 0 });
  });

  test('along another axis is refused by the cpu kernel', () => {
    const logits = tensor(values(6, 1), 2, 3);
    expect(() => softmaxKernels['Softmax']!(nativeBackend(), { logits }, { dim: 0 })).toThrow('non-last dimension');
  });
});
