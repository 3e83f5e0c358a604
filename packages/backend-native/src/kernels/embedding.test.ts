import { tf } from '@llmx/core';
import { beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectLikeReference, LENGTHS, values } from '../testing/compare.ts';
import { argument, describeEngine } from '../testing/kernels.ts';
import { expectLikeCpu, read, tensor } from '../testing/like-cpu.ts';
import { embeddingKernels } from './embedding.ts';

/** `count` ids below `rows`, some of them often. */
const idsBelow = (rows: number, count: number): Int32Array =>
  Int32Array.from(values(count, 9, 0, 1), (value) => Math.min(rows - 1, Math.floor(value * value * rows)));

describeEngine('embedding', () => {
  test('rows, and their sums, of any width', () => {
    for (const width of LENGTHS)
      for (const count of [0, 1, 40]) {
        const ids = argument(idsBelow(11, count));
        const empty = (...shape: [number, number]) =>
          argument(new Float32Array(shape[0] * shape[1]).fill(NaN), ...shape);
        expectLikeReference('LlmxEmbedding', `${count}x${width}`, {
          tensors: () => [argument(values(11 * width, 1), 11, width), ids, empty(count, width)],
          numbers: [11, width, 0],
          results: [2],
          tolerance: { relative: 0, absolute: 0 },
        });
        for (const sum of [undefined, argument(values(11 * width, 3), 11, width)])
          expectLikeReference('LlmxEmbeddingGrad', `${count}x${width}`, {
            tensors: () => [argument(values(count * width, 2), count, width), ids, sum, empty(11, width)],
            numbers: [11, width, 0],
            results: [3],
            tolerance: { absolute: 1e-5 },
          });
      }
  });

  test('sums in place, and of a table that is past the caches', () => {
    expectLikeReference('LlmxEmbeddingGrad', 'in place', {
      tensors: () => {
        const sum = argument(values(500, 3), 5, 100);
        return [argument(values(700, 2), 7, 100), argument(Int32Array.of(4, 0, 4, 2, 2, 2, 1)), sum, sum];
      },
      numbers: [5, 100, 0],
      results: [3],
    });
    const [rows, width] = [90_000, 50];
    const table = new Float32Array(rows * width);
    expectLikeReference('LlmxEmbeddingGrad', 'large', {
      tensors: () => [
        argument(values(2 * width, 2), 2, width),
        argument(Int32Array.of(7, rows - 1)),
        undefined,
        argument(table.fill(NaN)),
      ],
      numbers: [rows, width, 0],
      results: [3],
    });
  });
});

describeEngine('embedding as kernels', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  test('an id that names no row is refused', () => {
    const weight = tensor(values(12, 1), 4, 3);
    const run = (id: number) => () =>
      embeddingKernels['LlmxEmbedding']!(nativeBackend(), { weight, ids: tensor(Int32Array.of(0, id), 2) }, {});
    expect(run(4)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The kernel LlmxEmbedding failed: the index value 4 is not in [0, 3] (at position 1).]`,
    );
    expect(run(-1)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The kernel LlmxEmbedding failed: the index value -1 is not in [0, 3] (at position 1).]`,
    );
  });

  test('sums are added to a tensor that nobody else refers to, in its memory', () => {
    const engine = nativeBackend();
    const run = (shared: boolean) => {
      const sum = tensor(Float32Array.of(1, 2, 3, 4), 2, 2);
      if (shared) engine.incRef(sum.dataId);
      const inputs = { dy: tensor(Float32Array.of(10, 20), 1, 2), ids: tensor(Int32Array.of(1), 1), sum };
      const [result] = embeddingKernels['LlmxEmbeddingGrad']!(engine, inputs, { rows: 2 });
      return { isSame: result!.dataId === sum.dataId, result: [...read(result!)] };
    };
    expect(run(false)).toEqual({ isSame: true, result: [1, 2, 13, 24] });
    expect(run(true)).toEqual({ isSame: false, result: [1, 2, 13, 24] });
  });

  test('gather', () => {
    const x = tensor(values(24, 1), 4, 3, 2);
    const indices = tensor(Int32Array.of(3, 0, 0, 1), 2, 2);
    for (const axis of [0, 1, -3]) {
      const inputs = axis === 1 ? { x, indices: tensor(Int32Array.of(2, 0), 2) } : { x, indices };
      expectLikeCpu('GatherV2', embeddingKernels, inputs, { axis, batchDims: 0 });
    }
    expectLikeCpu(
      'GatherV2',
      embeddingKernels,
      { x: tensor(Int32Array.of(5, 6, 7, 8), 4), indices },
      { axis: 0, batchDims: 0 },
    );
  });

  test('sums of segments leave out ids that are out of range', () => {
    const inputs = { x: tensor(values(12, 1), 6, 2), segmentIds: tensor(Int32Array.of(0, 2, 0, -1, 5, 2), 6) };
    expectLikeCpu('UnsortedSegmentSum', embeddingKernels, inputs, { numSegments: 3 });
  });
});
