/** A C++ kernel with its inputs and the shapes of its results: against its scalar form, and against finite differences. */
import { expectClose, expectLikeReference, type Tolerance } from './compare.ts';
import { type Argument, argument, runKernel, type RunOptions } from './kernels.ts';

export interface KernelCase {
  readonly kernel: string;
  readonly inputs: readonly Argument[];
  /** Shapes of the results, which follow the inputs; undefined: left out. */
  readonly outputs: readonly (readonly number[] | undefined)[];
  readonly numbers: readonly number[];
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** Memory for the results, filled with NaN: what a kernel leaves unwritten shows. */
const emptyResults = ({ outputs }: KernelCase) =>
  outputs.map((shape) => shape && { values: new Float32Array(sizeOf(shape)).fill(NaN), shape });

/** The results that are not left out. */
export function resultsOf(theCase: KernelCase, options: RunOptions = {}): Float32Array[] {
  const results = emptyResults(theCase);
  runKernel(theCase.kernel, [...theCase.inputs, ...results], theCase.numbers, options);
  return results.flatMap((result) => (result ? [result.values] : []));
}

/** Like `expectLikeReference`. */
export function expectLevelsAgree(theCase: KernelCase, tolerance: Tolerance): void {
  const { kernel, inputs, outputs, numbers } = theCase;
  expectLikeReference(kernel, JSON.stringify(numbers), {
    tensors: () => [...inputs, ...emptyResults(theCase)],
    numbers,
    results: outputs.flatMap((shape, index) => (shape ? [inputs.length + index] : [])),
    tolerance,
  });
}

/** The case with other numbers in one of its inputs. */
export function withInput(theCase: KernelCase, index: number, values: Float32Array): KernelCase {
  return { ...theCase, inputs: theCase.inputs.with(index, argument(values, ...theCase.inputs[index]!.shape)) };
}

/** The scalar form's gradient of sum(dy * first result) by an input, against central differences. */
export function expectGradient(
  theCase: KernelCase,
  index: number,
  dy: Float32Array,
  gradient: Float32Array,
  tolerance: Tolerance = { absolute: 1e-3, relative: 1e-3 },
): void {
  const step = 1 / 64; // exact, and large enough that rounding of the results hardly counts
  const values = theCase.inputs[index]!.values as Float32Array;
  const weighted = (at: number, value: number): number => {
    const [result] = resultsOf(withInput(theCase, index, values.with(at, value)), { instructionSet: 'reference' });
    return result!.reduce((sum, y, place) => sum + y * dy[place]!, 0);
  };
  const estimated = values.map((value, at) => (weighted(at, value + step) - weighted(at, value - step)) / (2 * step));
  expectClose(gradient, estimated, tolerance, `gradient of input ${index}`);
}
