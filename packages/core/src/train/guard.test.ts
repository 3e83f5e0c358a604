import { expect, test } from 'vitest';

import { FRESH_GUARD, type GuardOptions, type GuardState, judge } from './guard.ts';

const options: GuardOptions = { maxSkips: 3, spikeSigma: 2, spikeWindow: 4 };
const good = { loss: 2, gradNorm: 1 };

/** The state after steps with these losses. */
const after = (losses: readonly number[], given = options): GuardState =>
  losses.reduce((state, loss) => judge(given, state, { loss, gradNorm: 1 }).state, FRESH_GUARD);

test.each([
  [{ ...good, loss: Number.NaN }, 'its loss is NaN'],
  [{ ...good, loss: -Infinity }, 'its loss is -Infinity'],
  [{ ...good, gradNorm: Infinity }, 'its gradient norm is Infinity'],
])('%j is left out', (numbers, reason) => {
  expect(judge(options, FRESH_GUARD, numbers)).toEqual({ skip: reason, state: { ...FRESH_GUARD, skips: 1 } });
});

test('skips count in a row', () => {
  expect(after([1, Number.NaN, Number.NaN]).skips).toBe(2);
  expect(after([1, Number.NaN, Number.NaN, 1, Number.NaN]).skips).toBe(1);
});

test('a spike stands out from a full window, which it does not enter', () => {
  const spike = { loss: 9, gradNorm: 1 };
  expect(judge(options, after([2, 3, 2]), spike).skip).toBeUndefined();
  const full = after([8, 2, 3, 2, 3]);
  expect(full.losses).toEqual([2, 3, 2, 3]);
  const { skip, state } = judge(options, full, spike);
  expect(skip).toMatchInlineSnapshot(
    `"its loss of 9.000 is more than 2 standard deviations above the mean 2.500 of the last 4 steps"`,
  );
  expect(state).toEqual({ ...full, skips: 1 });
  // mean 2.5, deviation sqrt(1 / 3): the limit is 3.6547
  expect(judge(options, full, { ...spike, loss: 3.65 }).skip).toBeUndefined();
  expect(judge(options, full, { ...spike, loss: 3.66 }).skip).toBeDefined();
  expect(judge(options, full, { ...spike, loss: -100 }).skip).toBeUndefined();
});

test('without a limit for spikes nothing is remembered', () => {
  const any = { ...options, spikeSigma: 0 };
  expect(after([2, 3, 2, 3, 900], any)).toEqual(FRESH_GUARD);
});

test('a window of equal values allows anything', () => {
  expect(judge(options, after([2, 2, 2, 2]), { loss: 900, gradNorm: 900 }).skip).toBeUndefined();
});
