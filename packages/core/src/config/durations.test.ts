import { expect, test } from 'vitest';

import {
  durationSchema,
  millisecondsOf,
  runLengthSchema,
  stepsOf,
  timeSchema,
  tokensOf,
  tokensSchema,
} from './durations.ts';

const scale = { tokensPerStep: 4096, totalSteps: 500 };

test.each([
  [0, 0],
  [100, 100],
  ['4096tok', 1],
  ['4097tok', 2],
  ['1Mtok', 245],
  ['1.5ktok', 1],
  ['0tok', 0],
  ['0.1Gtok', 24415],
  ['5%', 25],
  ['0.5%', 3],
  ['0.01%', 1],
  ['0%', 0],
])('%j is %i steps', (duration, steps) => {
  expect(stepsOf(duration, scale)).toBe(steps);
});

test.each(['100M', '5 %', 'Mtok', '-1', '1e3tok', '', '100mtok'])('%j is refused', (duration) => {
  expect(() => stepsOf(duration, scale)).toThrow(`The duration ${JSON.stringify(duration)} is not usable`);
  expect(durationSchema.safeParse(duration).success).toBe(false);
});

test.each([-1, 1.5, Number.NaN])('the number %d is refused', (duration) => {
  expect(() => stepsOf(duration, scale)).toThrow('is not usable');
  expect(durationSchema.safeParse(duration).success).toBe(false);
});

test('a run cannot be a share of itself', () => {
  expect(() => stepsOf('5%', { tokensPerStep: 4096 })).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: The duration "5%" is not usable: expected steps as an integer (1000) or tokens (100Mtok; k, M, G or T).]`,
  );
  expect(runLengthSchema.safeParse('5%').success).toBe(false);
  expect(runLengthSchema.safeParse(0).success).toBe(false);
  expect(runLengthSchema.safeParse('10Mtok').success).toBe(true);
});

test.each([
  ['90s', 90_000],
  ['45min', 2_700_000],
  ['0.5h', 1_800_000],
  ['2d', 172_800_000],
])('%j is %i ms', (time, milliseconds) => {
  expect(timeSchema.parse(time)).toBe(time);
  expect(millisecondsOf(time)).toBe(milliseconds);
});

test.each(['0s', '0.0h', '10', '1 h', '-1s', '1.h', 'h', '5m'])('%j is no time', (time) => {
  expect(timeSchema.safeParse(time).success).toBe(false);
});

test('numbers of tokens', () => {
  expect([tokensOf(1000), tokensOf('1.5ktok'), tokensOf('2Mtok')]).toEqual([1000, 1500, 2_000_000]);
  for (const wrong of [0, 1.5, '5%', '1M']) expect(tokensSchema.safeParse(wrong).success).toBe(false);
});
