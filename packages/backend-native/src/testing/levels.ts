/** Every form of a C++ kernel against its plain scalar form. */
import { expect } from 'vitest';

import { type Argument, argument, type Array, available, runKernel } from './kernels.ts';

/** Seeded numbers, roughly normally distributed: sums of uniform ones. */
export function noise(size: number, seed = 1): Float32Array {
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 8) / 2 ** 24 - 0.5;
  };
  return Float32Array.from({ length: size }, () => 2 * (uniform() + uniform() + uniform()));
}

export interface KernelCase {
  readonly kernel: string;
  readonly inputs: readonly Argument[];
  /** Shapes of the results, which follow the inputs. */
  readonly outputs: readonly (readonly number[])[];
  readonly numbers: readonly number[];
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** The results, memory being filled with NaN beforehand: what a kernel leaves unwritten shows. */
export function resultsOf(test: KernelCase, options: Parameters<typeof runKernel>[3]): Float32Array[] {
  const results = test.outputs.map((shape) => new Float32Array(sizeOf(shape)).fill(NaN));
  const outputs = results.map((values, index) => argument(values, ...test.outputs[index]!));
  runKernel(test.kernel, [...test.inputs, ...outputs], test.numbers, options);
  return results;
}

/** Equal up to `tolerance` times the largest value (1 at least); NaN and infinity at the same places. */
export function expectClose(got: Array, wanted: Array, tolerance: number): void {
  const finite = [...wanted].filter((value) => Number.isFinite(value));
  const limit = tolerance * finite.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
  const wrong = [...wanted.keys()].filter((index) => {
    const [a, b] = [got[index]!, wanted[index]!];
    return !(Object.is(a, b) || Math.abs(a - b) <= limit);
  });
  expect(wrong.slice(0, 4).map((index) => [index, got[index], wanted[index]])).toEqual([]);
}

/** Each instruction set gives the scalar form's results, aligned or not, and the same bits with 1, 2 and 3 threads. */
export function expectLevelsAgree(test: KernelCase, tolerance: number): void {
  const wanted = resultsOf(test, { instructionSet: 'reference' });
  for (const instructionSet of available)
    for (const misalign of [0, 1]) {
      const got = resultsOf(test, { instructionSet, misalign });
      got.forEach((values, index) => expectClose(values, wanted[index]!, tolerance));
      for (const threads of [2, 3])
        expect(resultsOf(test, { instructionSet, misalign, threads }), `${instructionSet}, ${threads} threads`).toEqual(got);
    }
}

/**
 * The scalar form's gradient of sum(dy * result) by an input, against central differences.
 *
 * @param forward gives the result for the input's values
 */
export function expectGradient(
  forward: (values: Float32Array) => Float32Array,
  values: Float32Array,
  dy: Float32Array,
  gradient: Float32Array,
): void {
  const step = 1 / 64;
  const weighted = (moved: Float32Array): number => forward(moved).reduce((sum, y, index) => sum + y * dy[index]!, 0);
  const estimated = values.map((value, index) => {
    const [above, below] = [value + step, value - step].map((x) => weighted(values.with(index, x)));
    return (above! - below!) / (2 * step);
  });
  expectClose(gradient, estimated, 1e-3);
}
