import { describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { Registry } from '../plugin/registry.ts';

const registry = new Registry([builtin]);
const TOTAL = 100;
const steps = (duration: number | string) =>
  typeof duration === 'number' ? duration : (Number.parseFloat(duration) / 100) * TOTAL;

/** The multiplier at each of the steps given. */
const at = (name: string, options: object, ...which: number[]) => {
  const schedule = registry.create('schedule', { name, ...options }, { steps });
  return which.map((step) => Number(schedule({ step, tokens: 0, totalSteps: TOTAL }).toFixed(6)));
};

describe.each(['constant', 'linear', 'cosine', 'wsd', 'inverse-sqrt'])('%s', (name) => {
  test('rises linearly over warm-up, from the first step, to 1', () => {
    expect(at(name, { warmup: 10 }, 1, 5, 10)).toEqual([0.1, 0.5, 1]);
    expect(at(name, { warmup: '20%' }, 10, 20)).toEqual([0.5, 1]);
  });

  test('never rises after warm-up and stays within 0 and 1', () => {
    const values = at(name, { warmup: 10 }, ...Array.from({ length: 91 }, (_, index) => 10 + index));
    values.forEach((value, index) => {
      expect(value).toBeGreaterThanOrEqual(0);
      if (index > 0) expect(value).toBeLessThanOrEqual(values[index - 1]!);
    });
  });

  test('copes with a warm-up as long as the run', () => {
    expect(at(name, { warmup: TOTAL }, 50, 100)).toEqual([0.5, 1]);
  });
});

test('constant stays', () => expect(at('constant', {}, 1, 50, 100)).toEqual([1, 1, 1]));

test('linear falls to final', () => {
  expect(at('linear', { warmup: 20 }, 60, 100)).toEqual([0.5, 0]);
  expect(at('linear', { final: 0.2 }, 50, 100)).toEqual([0.6, 0.2]);
});

test('cosine falls along half a cosine to final, a tenth by default', () => {
  expect(at('cosine', { final: 0 }, 50, 100)).toEqual([0.5, 0]);
  expect(at('cosine', {}, 25, 100)).toEqual([Number((0.1 + 0.45 * (1 + Math.SQRT1_2)).toFixed(6)), 0.1]);
});

test('wsd is constant and then falls over the last part', () => {
  expect(at('wsd', { warmup: 10, decay: 20 }, 50, 80, 90, 100)).toEqual([1, 1, 0.5, 0]);
  expect(at('wsd', {}, 80, 90, 100)).toEqual([1, 0.5, 0]);
});

test('inverse-sqrt falls with the root of the step', () => {
  expect(at('inverse-sqrt', { warmup: 4 }, 4, 16, 100)).toEqual([1, 0.5, 0.2]);
  expect(at('inverse-sqrt', {}, 1, 4)).toEqual([1, 0.5]);
});
