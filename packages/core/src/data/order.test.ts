import { describe, expect, test } from 'vitest';

import { windowOrder } from './order.ts';

const list = (seed: number, epoch: number, count: number) =>
  Array.from({ length: count }, (_, index) => windowOrder(seed, epoch, count)(index));

/** Sum of (observed - expected)^2 / expected. */
const chiSquare = (observed: readonly number[], expected: number) =>
  observed.reduce((sum, value) => sum + (value - expected) ** 2 / expected, 0);

describe('windowOrder', () => {
  test('stays as it is written down', () => {
    expect(list(1, 0, 10)).toMatchInlineSnapshot(`
      [
        3,
        1,
        0,
        8,
        2,
        9,
        7,
        6,
        4,
        5,
      ]
    `);
    expect([0, 1, 2].map(windowOrder(42, 7, 10 ** 12))).toMatchInlineSnapshot(`
      [
        214609019973,
        371992252916,
        601265176385,
      ]
    `);
  });

  test('sends an index to every window about equally often', () => {
    const [count, seeds] = [16, 4000];
    for (const index of [0, 7, 15]) {
      const times = Array.from({ length: count }, () => 0);
      for (let seed = 0; seed < seeds; seed++) times[windowOrder(seed, 0, count)(index)]!++;
      expect(chiSquare(times, seeds / count)).toBeLessThan(44.3); // 0.9999 quantile with 15 degrees of freedom
    }
  });

  test('sends neighbours to independent places', () => {
    const [count, cells] = [100_000, 10];
    const order = windowOrder(5, 0, count);
    const times = Array.from({ length: cells * cells }, () => 0);
    for (let index = 0; index + 1 < count; index += 2) {
      const cell = (at: number) => Math.floor((order(at) * cells) / count);
      times[cell(index) * cells + cell(index + 1)]!++;
    }
    expect(chiSquare(times, count / 2 / times.length)).toBeLessThan(160.1); // 0.9999 quantile with 99 degrees of freedom
  });

  test('all orders of three windows occur', () => {
    const orders = new Map<string, number>();
    for (let seed = 0; seed < 1200; seed++) {
      const key = list(seed, 0, 3).join('');
      orders.set(key, (orders.get(key) ?? 0) + 1);
    }
    expect(orders.size).toBe(6);
    expect(chiSquare([...orders.values()], 200)).toBeLessThan(25.7); // 0.9999 quantile with 5 degrees of freedom
  });

  test('refuses counts and indices that it cannot order', () => {
    expect(() => windowOrder(1, 0, 0)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: There is no order of 0 windows.]`,
    );
    expect(() => windowOrder(1, 0, 2 ** 40 + 1)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: There is no order of 1099511627777 windows.]`,
    );
    expect(() => windowOrder(1, 0, 5)(5)).toThrowErrorMatchingInlineSnapshot(`[LlmxError: Window 5 is not among 5.]`);
  });
});
