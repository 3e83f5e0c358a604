import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { windowOrder } from './order.ts';

describe('windowOrder', () => {
  test('visits each window once, for every count up to 2000', () => {
    for (let count = 1; count <= 2000; count++) {
      const order = windowOrder(count, 3, count);
      const seen = new Uint8Array(count);
      for (let index = 0; index < count; index++) seen[order(index)]!++;
      expect(seen.every((times) => times === 1)).toBe(true);
    }
  });

  test('gives different windows for different indices of large counts', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2 ** 20, max: 2 ** 40 }), fc.nat(), fc.nat({ max: 50 }), (count, seed, epoch) => {
        const order = windowOrder(seed, epoch, count);
        const indices = Array.from({ length: 300 }, (_, index) => Math.floor((index * count) / 300));
        const windows = indices.map(order);
        expect(new Set(windows).size).toBe(300);
        expect(windows.every((window) => Number.isInteger(window) && window >= 0 && window < count)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });

  test('differs between seeds and epochs', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat({ max: 1000 }), fc.integer({ min: 100, max: 10 ** 9 }), (seed, epoch, count) => {
        const first = (order: (index: number) => number) => Array.from({ length: 50 }, (_, index) => order(index));
        const base = first(windowOrder(seed, epoch, count));
        expect(first(windowOrder(seed, epoch, count))).toEqual(base);
        expect(first(windowOrder(seed + 1, epoch, count))).not.toEqual(base);
        expect(first(windowOrder(seed, epoch + 1, count))).not.toEqual(base);
      }),
    );
  });
});
