/** Comparing every form of a C++ kernel with its scalar reference. */
import { expect } from 'vitest';

import { type Argument, available, type RunOptions, runKernel, widened } from './kernels.ts';

/** From nothing to twice the longest vector and past a block of an elementwise program, odd ones among them. */
export const LENGTHS = [0, 1, 3, 4, 7, 15, 16, 17, 31, 33, 64, 100, 513, 1027] as const;

/** Numbers between `low` and `high`, the same for the same seed. */
export function values(count: number, seed: number, low = -2, high = 2): Float32Array {
  let state = seed * 2654435761 + 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) | 0;
    return low + ((high - low) * ((state ^ (state >>> 13)) >>> 0)) / 2 ** 32;
  });
}

/** Numbers that arithmetic treats in ways of their own. */
export const SPECIAL = [
  NaN,
  Infinity,
  -Infinity,
  0,
  -0,
  1,
  -1,
  1e-45,
  -1e-38,
  3e38,
  -3e38,
  0.5,
  88,
  -88,
  104,
  -104,
] as const;

export interface Tolerance {
  readonly relative?: number;
  readonly absolute?: number;
  /** Of the largest finite magnitude expected: for sums in which large terms cancel. */
  readonly ofLargest?: number;
}

/** Fails unless each number is within the sum of the tolerances; NaN and infinities must be the same. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { relative = 1e-6, absolute = 1e-6, ofLargest = 0 }: Tolerance = {},
  label = '',
): void {
  expect(actual.length, label).toBe(expected.length);
  const magnitudes = Array.from(expected, Math.abs).filter(Number.isFinite);
  const largest = magnitudes.reduce((most, value) => Math.max(most, value), 0);
  const least = absolute + (ofLargest === 0 ? 0 : ofLargest * largest);
  for (let index = 0; index < expected.length; index++) {
    const [a, b] = [actual[index]!, expected[index]!];
    if (Object.is(a, b) || Math.abs(a - b) <= least + relative * Math.abs(b)) continue;
    throw new Error(`${label}: element ${index} is ${a}, not ${b}.`);
  }
}

interface Case {
  /** The kernel's tensors, made anew for each run. */
  readonly tensors: () => Argument[];
  readonly numbers?: readonly number[];
  /** Positions of the results. */
  readonly results: readonly number[];
  readonly tolerance?: Tolerance;
}

/** Runs a kernel and gives copies of its results. */
function resultsOf(name: string, { tensors, numbers = [], results }: Case, options: RunOptions): Argument[] {
  const given = tensors();
  runKernel(name, given, numbers, options);
  return results.map((position) => given[position]);
}

const bitsOf = ({ values: { buffer, byteOffset, byteLength } }: NonNullable<Argument>): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength);

/**
 * Runs the kernel at every instruction set of the machine: within tolerance of the reference, and bit for bit the same on
 * 1, 2 and 3 threads and for data at any multiple of 4 bytes.
 */
export function expectLikeReference(name: string, label: string, theCase: Case): void {
  const expected = resultsOf(name, theCase, { instructionSet: 'reference' });
  for (const instructionSet of available) {
    const first = resultsOf(name, theCase, { instructionSet });
    first.forEach((result, index) =>
      expectClose(
        widened(result!.values),
        widened(expected[index]!.values),
        theCase.tolerance,
        `${name} ${label} at ${instructionSet}`,
      ),
    );
    for (const options of [
      { threads: 2, misalign: 1 },
      { threads: 3, misalign: 5 },
    ]) {
      const again = resultsOf(name, theCase, { instructionSet, ...options });
      again.forEach((result, index) => {
        const where = `${name} ${label} at ${instructionSet}, ${JSON.stringify(options)}`;
        expect(bitsOf(result!).equals(bitsOf(first[index]!)), where).toBe(true);
      });
    }
  }
}
