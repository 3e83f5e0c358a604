import { expect, test } from 'vitest';

import { measurePeaks } from './peaks.ts';

test('sets what the loops do against the clock', () => {
  let clock = 0;
  // By this clock every loop and every copy takes a millisecond.
  expect(measurePeaks(() => clock++)).toEqual({
    gflops: (2 * 4 * 12 * 200_000) / 1e6,
    gigabytesPerSecond: (2 * 2 ** 26) / 1e6,
    threads: 1,
  });
});

test('measures something on this machine', () => {
  const { gflops, gigabytesPerSecond } = measurePeaks(() => performance.now());
  expect(gflops).toBeGreaterThan(0);
  expect(gigabytesPerSecond).toBeGreaterThan(0);
  expect(Number.isFinite(gflops + gigabytesPerSecond)).toBe(true);
});
