import { expect, test } from 'vitest';

import { erf } from './erf.ts';

test('known values of the error function (Abramowitz & Stegun, table 7.1)', () => {
  const table: [number, number][] = [
    [0, 0],
    [0.1, 0.112462916],
    [0.5, 0.5204998778],
    [1, 0.8427007929],
    [1.5, 0.9661051465],
    [2, 0.995322265],
    [3, 0.9999779095],
  ];
  for (const [x, value] of table) {
    expect(Math.abs(erf(x) - value)).toBeLessThan(1e-10);
    expect(erf(-x)).toBe(-erf(x));
  }
  expect(erf(Infinity)).toBe(1);
  expect(erf(-7)).toBe(-1);
  expect(erf(NaN)).toBeNaN();
});
