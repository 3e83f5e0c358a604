import type { tf } from '../tensor/index.ts';

export type Numbers = ArrayLike<number> | tf.Tensor;

export const toArray = (values: Numbers): ArrayLike<number> => ('dataSync' in values ? values.dataSync() : values);

/** The largest absolute difference between two lists of one length, and where it is; NaN counts as infinite. */
export function largestDifference(actual: Numbers, expected: Numbers): { difference: number; index: number } {
  const [a, b] = [toArray(actual), toArray(expected)];
  if (a.length !== b.length) throw new Error(`Expected ${b.length} values, got ${a.length}.`);
  let worst = { difference: 0, index: -1 };
  for (let index = 0; index < a.length; index++) {
    const distance = Object.is(a[index], b[index]) ? 0 : Math.abs(a[index]! - b[index]!);
    const difference = Number.isNaN(distance) ? Infinity : distance;
    if (difference > worst.difference) worst = { difference, index };
  }
  return worst;
}

/** The largest magnitude in a list. */
export const largestMagnitude = (values: Numbers): number =>
  Array.from(toArray(values)).reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);

/**
 * Fails unless every value is within `tolerance` of the expected one.
 *
 * @param what named in the message
 */
export function expectClose(actual: Numbers, expected: Numbers, tolerance: number, what: string): void {
  const { difference, index } = largestDifference(actual, expected);
  if (difference <= tolerance) return;
  const [a, b] = [toArray(actual)[index], toArray(expected)[index]];
  throw new Error(`${what}: value ${index} is ${a}, expected ${b}; off by ${difference}, allowed ${tolerance}.`);
}
