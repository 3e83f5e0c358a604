import { expect, test } from 'vitest';

import { Pace } from './pace.ts';

/** A pace and a clock that the test moves. */
function paced() {
  let time = 0;
  return { pace: new Pace(() => time), pass: (milliseconds: number) => void (time += milliseconds) };
}

test('shares the time since the last point among the steps since then', () => {
  const { pace, pass } = paced();
  pace.caughtUp(2);
  pass(30);
  pace.caughtUp(5);
  expect(pace.latest()).toBe(10);
  pass(40);
  pace.caughtUp(6);
  expect(pace.latest()).toBe(40);
  expect(pace.median()).toBe(10);
  pass(40);
  pace.caughtUp(7);
  pass(40);
  pace.caughtUp(8);
  expect(pace.median()).toBe(25);
});

test('leaves out what happened between a point and a restart', () => {
  const { pace, pass } = paced();
  pace.caughtUp(2);
  pass(10);
  pace.caughtUp(3);
  pass(1e6); // an evaluation
  pace.restart(3);
  pass(10);
  pace.caughtUp(4);
  expect(pace.median()).toBe(10);
});

test('knows nothing before two points', () => {
  const { pace } = paced();
  expect(pace.median()).toBeUndefined();
  pace.caughtUp(2);
  expect(pace.latest()).toBeUndefined();
});

test('of a long run takes steps that are spread over all of it', () => {
  const { pace, pass } = paced();
  const length = 100_000;
  pace.caughtUp(0);
  for (let step = 1; step <= length; step++) {
    pass(step);
    pace.caughtUp(step);
  }
  expect(Math.abs(pace.median()! / (length / 2) - 1)).toBeLessThan(0.01);
  expect(pace.latest()).toBe(length);
});
