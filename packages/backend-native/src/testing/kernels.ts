/** Running C++ kernels by name over plain arrays, for tests: at a chosen instruction set, misaligned, on some threads. */
import { describe, test } from 'vitest';

import {
  engineMissing,
  INSTRUCTION_SETS,
  type InstructionSet,
  Library,
  locateEngine,
  type NativeTensor,
} from '../library.ts';

/** Uint16Array: the bits of bfloat16. */
export type Array = Float32Array | Int32Array | Uint16Array;

export interface RunOptions {
  readonly instructionSet?: InstructionSet;
  readonly threads?: number;
  /** Elements by which every array is moved off its alignment. */
  readonly misalign?: number;
}

/** An array and its shape; undefined: an optional tensor left out. */
export type Argument = { readonly values: Array; readonly shape: readonly number[] } | undefined;

export const argument = (values: Array, ...shape: number[]): Argument => ({
  values,
  shape: shape.length > 0 ? shape : [values.length],
});

const file = locateEngine();
export const library = file === undefined ? undefined : await Library.open(file);

/** Instruction sets of this machine, `reference` left out; LLMX_TEST_ISA names the only one to be tested. */
export const available: readonly InstructionSet[] =
  library === undefined
    ? []
    : INSTRUCTION_SETS.slice(1, INSTRUCTION_SETS.indexOf(library.bestInstructionSet) + 1).filter(
        (level) => level === (process.env['LLMX_TEST_ISA'] ?? level),
      );

/** Numbers rounded to bfloat16, to the nearest, ties to even, and their bits. */
export function narrowed(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}
/** What bits of bfloat16 stand for; other arrays as they are. */
export const widened = (values: Array): Float32Array | Int32Array =>
  values instanceof Uint16Array ? new Float32Array(Uint32Array.from(values, (half) => half << 16).buffer) : values;

/** `describe`, skipped with the reason where there is one. */
function describeUnless(missing: string | undefined, title: string, body: () => void): void {
  /* oxlint-disable vitest/valid-title, vitest/valid-describe-callback -- both are the caller's */
  if (missing === undefined) describe(title, body);
  else test(title, ({ skip }) => skip(missing));
  /* oxlint-enable vitest/valid-title, vitest/valid-describe-callback */
}

/** `describe` that is skipped, with the reason, where the engine is not there. */
export const describeEngine = (title: string, body: () => void): void => describeUnless(engineMissing(), title, body);

const loaded = new Set<string>();

/** `describe` for the kernels of a plugin's library, which is loaded; skipped where that (undefined) or the engine is not there. */
export function describeKernels(kernels: string | undefined, title: string, body: () => void): void {
  const missing = engineMissing() ?? (kernels === undefined ? 'nothing built the kernels' : undefined);
  if (missing === undefined && !loaded.has(kernels!)) {
    library!.addLibrary(kernels!);
    loaded.add(kernels!);
  }
  describeUnless(missing, title, body);
}

/**
 * Runs the kernel on copies of the arrays; results are written back into the given ones. One array given twice is passed
 * as one memory, for results in place.
 */
export function runKernel(
  name: string,
  tensors: readonly Argument[],
  numbers: readonly number[] = [],
  options: RunOptions = {},
): void {
  const { instructionSet = INSTRUCTION_SETS.at(-1)!, threads = 1, misalign = 0 } = options;
  const copies = new Map<Array, { view: Array; native: Omit<NativeTensor, 'shape'> }>();
  for (const tensor of tensors) {
    if (tensor === undefined || copies.has(tensor.values)) continue;
    const { values } = tensor;
    const buffer = new ArrayBuffer((values.length + 32) * 4);
    const address = library!.addressOf(buffer);
    const offset = ((64 - (address % 64)) % 64) + misalign * values.BYTES_PER_ELEMENT;
    const [dtype, View] =
      values instanceof Float32Array
        ? (['float32', Float32Array] as const)
        : values instanceof Int32Array
          ? (['int32', Int32Array] as const)
          : (['bfloat16', Uint16Array] as const);
    const view = new View(buffer, offset, values.length);
    view.set(values);
    copies.set(values, { view, native: { address: address + offset, size: values.length, dtype } });
  }
  library!.setInstructionSet(instructionSet);
  library!.setThreads(threads);
  library!.run(
    name,
    tensors.map((tensor) => tensor && { ...copies.get(tensor.values)!.native, shape: tensor.shape }),
    numbers,
  );
  for (const [values, { view }] of copies) values.set(view);
}
