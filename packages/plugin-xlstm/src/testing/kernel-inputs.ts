/** What the tests of this plugin's C++ kernels share. */
import { type Argument, argument, sizeOf, type Tolerance, values } from '@llmx/backend-native/testing';

/** Numbers between `low` and `high`, the same for the same seed. */
export const random = (seed: number, shape: readonly number[], low = -1, high = 1): NonNullable<Argument> =>
  argument(values(sizeOf(shape), seed, low, high), ...shape)!;

/** Documents of uneven lengths, their numbers neither ascending nor unique. */
export const documents = (batch: number, time: number): Argument =>
  argument(
    Int32Array.from({ length: batch * time }, (_, i) => ((i * i) >> 9) % 3),
    batch,
    time,
  );

/** Results as inputs of another kernel; undefined where they were left out. */
export function asArguments(
  results: readonly Float32Array[],
  shapes: readonly (readonly number[] | undefined)[],
): Argument[] {
  const rest = [...results];
  return shapes.map((shape) => shape && argument(rest.shift()!, ...shape));
}

/** Within a share of the largest number. */
export const of = (share: number): Tolerance => ({ relative: 0, absolute: 1e-30, ofLargest: share });
