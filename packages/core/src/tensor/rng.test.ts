import { beforeAll, describe, expect, test } from 'vitest';

import { useBackend } from '../testing/backends.ts';
import { keyedRng, philox, philoxWords, randomKey, uniformValues } from './rng.ts';

const words = (key: [number, number], counter: [number, number, number, number]): string => {
  const out = new Uint32Array(4);
  philoxWords({ low: key[0], high: key[1] }, counter, out);
  return [...out].map((word) => word.toString(16).padStart(8, '0')).join(' ');
};

test('Philox4x32-10 gives the known answers published with the algorithm', () => {
  const ones = 0xffffffff;
  expect(words([0, 0], [0, 0, 0, 0])).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  expect(words([ones, ones], [ones, ones, ones, ones])).toBe('408f276d 41c83b0e a20bc7c6 6d5451fd');
  expect(words([0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344])).toBe(
    'd16cfe09 94fdcceb 5001e420 24126ea1',
  );
});

test('a counter above 32 bits uses the second word', () => {
  const out = new Uint32Array(4);
  philox({ low: 1, high: 2 }, 2 ** 32 * 5 + 7, out);
  expect([...out].map((word) => word.toString(16).padStart(8, '0')).join(' ')).toBe(words([1, 2], [7, 5, 0, 0]));
});

test('a part of the uniform numbers is the same from whatever offset', () => {
  const key = randomKey(1, 'test', 'a');
  const whole = uniformValues(key, 100);
  for (const offset of [0, 1, 4, 7, 50])
    expect(uniformValues(key, 20, offset)).toEqual(whole.slice(offset, offset + 20));
});

test('uniform numbers lie inside (0, 1) and fill it evenly', () => {
  const values = uniformValues(randomKey(3, 'test', ''), 40_000);
  expect(Math.min(...values.slice(0, 10_000))).toBeGreaterThan(0);
  const counts = Array.from({ length: 20 }, () => 0);
  for (const value of values) counts[Math.floor(value * 20)]! += 1;
  // Chi-squared with 19 degrees of freedom is below 43.8 in 999 of 1,000 cases; the numbers are fixed.
  expect(counts.reduce((sum, count) => sum + (count - 2000) ** 2 / 2000, 0)).toBeLessThan(43.8);
});

test('normal numbers have mean 0, variance 1 and the tails of the normal distribution', async () => {
  await useBackend('cpu');
  const values = keyedRng(4, 'test').normal('', [40_001], 1).dataSync<'float32'>();
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  const outside = values.filter((value) => Math.abs(value) > 1.96).length / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.02);
  expect(Math.abs(variance - 1)).toBeLessThan(0.03);
  expect(Math.abs(outside - 0.05)).toBeLessThan(0.005);
});

describe('tensors', () => {
  beforeAll(() => useBackend('cpu'));

  test('depend on seed, purpose and path, not on the order of calls', () => {
    const values = (seed: number, purpose: string, path: string) =>
      keyedRng(seed, purpose).normal(path, [5], 1).dataSync();
    const reference = values(1, 'init', 'a.b');
    const rng = keyedRng(1, 'init');
    rng.normal('other', [3], 1);
    expect(rng.scope('a').normal('b', [5], 1).dataSync()).toEqual(reference);
    for (const [seed, purpose, path] of [
      [2, 'init', 'a.b'],
      [1, 'dropout', 'a.b'],
      [1, 'init', 'a.c'],
    ] as const)
      expect(values(seed, purpose, path)).not.toEqual(reference);
  });

  test('have the shape, spread and range asked for', () => {
    const uniform = keyedRng(1, 'init').uniform('u', [2, 3], -2, -1);
    expect(uniform.shape).toEqual([2, 3]);
    expect([...uniform.dataSync()].every((value) => value >= -2 && value <= -1)).toBe(true);
    const normal = [...keyedRng(1, 'init').normal('n', [1000], 0.1, 5).dataSync()];
    expect(Math.abs(normal.reduce((sum, value) => sum + value, 0) / 1000 - 5)).toBeLessThan(0.02);
  });
});
