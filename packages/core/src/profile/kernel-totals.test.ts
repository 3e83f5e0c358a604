import { expect, test } from 'vitest';

import { KernelTotals } from './kernel-totals.ts';
import type { TimedCall } from './timed-call.ts';

const PEAKS = { gflops: 100, gigabytesPerSecond: 10, threads: 2 };

const call = (name: string, milliseconds: number, bytes: number, operations?: number): TimedCall => ({
  name,
  start: 0,
  milliseconds,
  bytes,
  operations,
  inputs: {},
  outputs: [],
});

test('a row per kernel and step, the slowest first', () => {
  const totals = new KernelTotals(PEAKS, ['Fast']);
  for (const step of [1, 2]) {
    totals.add(call('Slow', 2 * step, 4e6)); // at best 0.4 ms
    totals.add(call('Fast', 1, 1e6, 50e6)); // at best 0.5 ms, its memory 0.1 ms
  }
  totals.add(call('View', 0.5, 0));
  expect(totals.rows({ steps: 2, stepMilliseconds: 10 })).toEqual([
    {
      kernel: 'Slow',
      native: false,
      calls: 1,
      milliseconds: 3,
      share: 0.3,
      bytes: 4e6,
      gigabytesPerSecond: expect.closeTo(4 / 3),
      gflops: null,
      limit: { by: 'memory', share: expect.closeTo(0.8 / 6) },
    },
    {
      kernel: 'Fast',
      native: true,
      calls: 1,
      milliseconds: 1,
      share: 0.1,
      bytes: 1e6,
      gigabytesPerSecond: 1,
      gflops: 50,
      limit: { by: 'arithmetic', share: 0.5 },
    },
    {
      kernel: 'View',
      native: false,
      calls: 0.5,
      milliseconds: 0.25,
      share: 0.025,
      bytes: 0,
      gigabytesPerSecond: 0,
      gflops: null,
      limit: null,
    },
  ]);
});

test('a product that memory bounds is set against memory', () => {
  const totals = new KernelTotals(PEAKS);
  totals.add(call('Product', 1, 5e6, 10e6));
  expect(totals.rows({ steps: 1, stepMilliseconds: 1 })).toMatchObject([
    { native: null, gflops: 10, limit: { by: 'memory', share: 0.5 } },
  ]);
});

test('a clock too coarse for a kernel gives numbers', () => {
  const totals = new KernelTotals(PEAKS);
  totals.add(call('Product', 0, 5e6, 10e6));
  expect(totals.rows({ steps: 1, stepMilliseconds: 0 })).toMatchObject([
    { share: 0, gigabytesPerSecond: 0, gflops: 0, limit: null },
  ]);
});
