import os from 'node:os';

import { defineBackend, LlmxError, type Precision, tf, z } from '@llmx/core';
import { nativeKernelNames, registerKernels } from './registration.ts';
import {
  engineMissing,
  engineUnavailable,
  INSTRUCTION_SETS,
  type InstructionSet,
  Library,
  locateEngine,
} from './library.ts';
import type { NativeBackend } from './native-backend.ts';
import { measurePeaks } from './peaks.ts';
import { checkTiles } from './tile-check.ts';

/** Limits the instruction set, e.g. to see what a machine without AVX-512 would do. */
const ISA_VARIABLE = 'LLMX_NATIVE_ISA';
/** Fills memory with NaN when it is released, to find whoever still reads it: for tests of kernels. */
const DEBUG_VARIABLE = 'LLMX_NATIVE_DEBUG';

const config = z.strictObject({
  threads: z
    .int()
    .positive()
    .max(256)
    .optional()
    .describe('Threads; default: one per core. Results do not depend on it.'),
});

/** Why the engine cannot be used here, as a clause; undefined if it is there. */
export const nativeUnavailable = (): string | undefined => engineMissing();

let active: NativeBackend | undefined;

function wantedInstructionSet(library: Library): InstructionSet {
  const wanted = process.env[ISA_VARIABLE];
  if (wanted === undefined || wanted === '') return library.bestInstructionSet;
  if ((INSTRUCTION_SETS as readonly string[]).includes(wanted)) return wanted as InstructionSet;
  throw new LlmxError('LLMX_CONFIG_INVALID', `${ISA_VARIABLE} is "${wanted}", which is no instruction set.`, {
    hint: `Set it to one of ${INSTRUCTION_SETS.join(', ')}, or leave it out.`,
  });
}

/** The engine of this process, loaded when it is first asked for. */
async function open(): Promise<NativeBackend> {
  if (active !== undefined) return active;
  const file = locateEngine();
  if (file === undefined) throw engineUnavailable();
  const library = await Library.open(file);
  // Loaded here, since it brings all of tfjs-backend-cpu: whatever is not worth C++ is taken from there.
  const { NativeBackend: Backend } = await import('./native-backend.ts');
  const backend = new Backend(library, { overwritesReleased: process.env[DEBUG_VARIABLE] === '1' });
  tf.registerBackend('native', () => backend);
  registerKernels();
  active = backend;
  return backend;
}

/** The backend that is loaded; throws where there is none. */
export function nativeBackend(): NativeBackend {
  if (active === undefined) throw engineUnavailable();
  return active;
}

const multipliesBfloat16 = ({ instructionSet }: Library): boolean =>
  INSTRUCTION_SETS.indexOf(instructionSet) >= INSTRUCTION_SETS.indexOf('avx512-bf16');

const describe = ({ library, roundsProducts }: NativeBackend): string => {
  const threads = library.threads === 1 ? 'one thread' : `${library.threads} threads`;
  const products = roundsProducts ? ', products in bfloat16' : '';
  const warning = library.distrusted === undefined ? '' : ` (${library.distrusted})`;
  return `C++ kernels, ${library.instructionSet}, ${threads}${products}${warning}`;
};

/**
 * Loads the engine and registers it with TensorFlow.js as `native`; gives one line about it. With `bf16` products of matrices
 * round their operands to bfloat16, and what only products read lies in memory so; sums, and all else, are float32.
 *
 * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE`, `LLMX_CONFIG_INVALID`
 */
export async function registerNativeBackend({
  threads = os.availableParallelism(),
  precision = 'fp32',
}: { threads?: number | undefined; precision?: Precision } = {}): Promise<string> {
  const backend = await open();
  backend.roundsProducts = precision === 'bf16';
  backend.library.setInstructionSet(wantedInstructionSet(backend.library));
  backend.library.setThreads(threads);
  checkTiles(backend.library);
  return describe(backend);
}

export const nativeComponent = defineBackend({
  name: 'native',
  summary: 'C++ kernels on all cores, with AVX2, AVX-512 and AMX where the processor has them.',
  config,
  build: ({ threads }, { precision }) => ({
    tfjsName: 'native',
    precisions: ['fp32', 'bf16'],
    load: () => registerNativeBackend({ threads, precision }),
    facts: () => {
      const { library } = nativeBackend();
      const { gflops, gigabytesPerSecond } = measurePeaks(nativeBackend());
      const limited = process.env[ISA_VARIABLE] ? ` (limited by ${ISA_VARIABLE})` : '';
      return [
        {
          name: 'instruction set',
          value: `${library.instructionSet}${limited}; the machine has ${library.bestInstructionSet}`,
        },
        ...(library.distrusted === undefined ? [] : [{ name: 'warning', value: library.distrusted }]),
        {
          name: 'bfloat16',
          value: multipliesBfloat16(library)
            ? 'fast: the processor multiplies it'
            : 'rounded, then multiplied as float32: precision bf16 saves memory, no time',
        },
        { name: 'threads', value: `${library.threads}` },
        { name: 'measured peak', value: `${gflops.toFixed(0)} GFLOP/s, ${gigabytesPerSecond.toFixed(0)} GB/s` },
        { name: 'library', value: library.path },
      ];
    },
    peaks: () => measurePeaks(nativeBackend()),
    nativeKernels: nativeKernelNames,
  }),
});
