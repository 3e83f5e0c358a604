import { expect, test } from 'vitest';

import { expectLikeReference, LENGTHS, values } from '../testing/compare.ts';
import { argument, describeEngine, runKernel } from '../testing/kernels.ts';

describeEngine("the machine's limits", () => {
  test('streaming computes what it is timed for', () => {
    for (const length of [...LENGTHS, 40_000])
      expectLikeReference('LlmxStream', String(length), {
        tensors: () => [values(length, 1), values(length, 2)].map((given) => argument(given)),
        numbers: [0.5],
        results: [0],
      });
  });

  test('the peak counts the operations of all threads', () => {
    const operations = [1, 3].map((threads) => {
      const count = new Float32Array(1);
      runKernel('LlmxPeak', [argument(count)], [100], { threads });
      return count[0]!;
    });
    expect(operations[0]).toBeGreaterThanOrEqual(100 * 2 * 12 * 4);
    expect(operations[1]).toBe(3 * operations[0]!);
  });
});
