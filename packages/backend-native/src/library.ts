import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { LlmxError } from '@llmx/core';
import type { LibraryHandle } from 'koffi';

/** The levels of native/include/llmx/kernel.h, by their numbers there. */
export const INSTRUCTION_SETS = ['reference', 'portable', 'avx2', 'avx512', 'avx512-bf16', 'amx'] as const;
export type InstructionSet = (typeof INSTRUCTION_SETS)[number];

const EXTENSION: Partial<Record<NodeJS.Platform, string>> = { win32: '.dll', darwin: '.dylib' };
const PLATFORM = `${process.platform}-${process.arch}`;

/**
 * A library of kernels: as built in its package's folder `build`, else as the package `<name>-<platform>-<arch>` brings it;
 * undefined if there is neither.
 *
 * @param home the URL of the folder of the package, which is called `name`
 * @param library file name without its extension
 */
export function locateLibrary({
  home,
  name,
  library,
}: {
  home: URL;
  name: string;
  library: string;
}): string | undefined {
  const file = `${library}${EXTENSION[process.platform] ?? '.so'}`;
  const built = path.join(fileURLToPath(home), 'build', file);
  if (fs.existsSync(built)) return built;
  try {
    return createRequire(new URL('package.json', home)).resolve(`${name}-${PLATFORM}/${file}`);
  } catch {
    return undefined;
  }
}

/** The engine that LLMX_NATIVE_LIBRARY names, else where `locateLibrary` finds it. */
export function locateEngine(): string | undefined {
  const named = process.env['LLMX_NATIVE_LIBRARY'];
  if (named !== undefined && named !== '') return named;
  return locateLibrary({ home: new URL('../', import.meta.url), name: '@llmx/backend-native', library: 'llmx-native' });
}

/** Why the engine cannot be used, as a clause; undefined if its library is there. */
export const engineMissing = (): string | undefined =>
  locateEngine() === undefined
    ? `no C++ compiler built it, and there is no package @llmx/backend-native-${PLATFORM}`
    : undefined;

const unavailable = (reason: string, hint: string, cause?: unknown): LlmxError =>
  new LlmxError('LLMX_BACKEND_UNAVAILABLE', `The backend "native" cannot be used: ${reason}.`, { hint, cause });

const HEADER_BYTES = 64;
const TENSOR_BYTES = 64;
const MAX_TENSORS = 48;
const MAX_NUMBERS = 256;
const MAX_RANK = 8;
const TWO_32 = 2 ** 32;
const DTYPES = { float32: 0, int32: 1, bfloat16: 2 } as const;

/** A tensor as a C++ kernel sees it. */
export interface NativeTensor {
  readonly address: number;
  readonly size: number;
  readonly dtype: keyof typeof DTYPES;
  readonly shape: readonly number[];
}

const SIGNATURES = {
  llmx_abi: 'uint32_t llmx_abi()',
  llmx_best_instruction_set: 'int32_t llmx_best_instruction_set()',
  llmx_amx_refusal: 'const char *llmx_amx_refusal()',
  llmx_set_threads: 'int32_t llmx_set_threads(int32_t)',
  llmx_address: 'uint64_t llmx_address(void *)',
  llmx_services: 'void *llmx_services()',
  llmx_add_library: 'void llmx_add_library(void *)',
  llmx_find: 'int32_t llmx_find(const char *, int32_t)',
  llmx_run: 'int32_t llmx_run(int32_t, uint64_t)',
  llmx_failure: 'const char *llmx_failure()',
  llmx_scratch_bytes: 'int64_t llmx_scratch_bytes()',
} as const;

/** The version of kernel.h that this package's TypeScript speaks. */
const ABI = 1;

type Koffi = typeof import('koffi');
type KoffiFunction = ReturnType<LibraryHandle['func']>;

/** The loaded engine: calls C++ kernels by name. Several of one file share its threads and working memory. */
export class Library {
  readonly path: string;
  readonly bestInstructionSet: InstructionSet;
  readonly #koffi: Koffi;
  /** Held for good: koffi unloads a library whose handle is collected. */
  readonly #handles: LibraryHandle[];
  readonly #functions: Readonly<Record<keyof typeof SIGNATURES, KoffiFunction>>;
  readonly #arguments = new ArrayBuffer(HEADER_BYTES + MAX_TENSORS * TENSOR_BYTES + MAX_NUMBERS * 8);
  readonly #words = new Int32Array(this.#arguments);
  readonly #doubles = new Float64Array(this.#arguments);
  readonly #argumentsAddress: number;
  readonly #kernels = new Map<string, number>();
  #instructionSet: InstructionSet;
  #distrusted: { readonly level: InstructionSet; readonly reason: string } | undefined;
  #threads = 1;

  private constructor(file: string, koffi: Koffi, handle: LibraryHandle) {
    this.path = file;
    this.#koffi = koffi;
    this.#handles = [handle];
    this.#functions = Object.fromEntries(
      Object.entries(SIGNATURES).map(([name, signature]) => [name, handle.func(signature)]),
    ) as Record<keyof typeof SIGNATURES, KoffiFunction>;
    checkAbi(this.#call('llmx_abi') as number, file);
    this.#argumentsAddress = this.addressOf(this.#arguments);
    this.#call('llmx_add_library', null);
    this.bestInstructionSet = INSTRUCTION_SETS[this.#call('llmx_best_instruction_set') as number]!;
    this.#instructionSet = this.bestInstructionSet;
    const refusal = this.#call('llmx_amx_refusal') as string | null;
    if (refusal !== null) this.distrust('amx', refusal);
  }

  /**
   * Loads an engine.
   *
   * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE` where it does not load, or speaks another version of the contract
   */
  static async open(file: string): Promise<Library> {
    const koffi = await loadKoffi();
    let handle: LibraryHandle;
    try {
      handle = koffi.load(file);
    } catch (cause) {
      const [reason] = String(cause instanceof Error ? cause.message : cause).split('\n');
      throw unavailable(`${file} did not load (${reason})`, 'Run `npm run setup` again to build it anew.', cause);
    }
    return new Library(file, koffi, handle);
  }

  /** Threads that kernels use, the calling one included. */
  get threads(): number {
    return this.#threads;
  }

  setThreads(threads: number): void {
    this.#threads = this.#call('llmx_set_threads', threads) as number;
  }

  get instructionSet(): InstructionSet {
    return this.#instructionSet;
  }

  /** Limits kernels to an instruction set; one that the machine lacks, or that is not trusted, is lowered to the best below. */
  setInstructionSet(wanted: InstructionSet): void {
    const best = INSTRUCTION_SETS.indexOf(this.bestInstructionSet);
    const trusted = this.#distrusted === undefined ? best : INSTRUCTION_SETS.indexOf(this.#distrusted.level) - 1;
    this.#instructionSet = INSTRUCTION_SETS[Math.min(INSTRUCTION_SETS.indexOf(wanted), best, trusted)]!;
    this.#kernels.clear();
  }

  /** Uses neither this instruction set nor better ones from here on; `reason` is a clause. */
  distrust(level: InstructionSet, reason: string): void {
    this.#distrusted = { level, reason };
    this.setInstructionSet(this.#instructionSet);
  }

  /** Which instruction set is not trusted and why, as a clause; undefined if all are. */
  get distrusted(): string | undefined {
    return this.#distrusted && `${this.#distrusted.level} is not used: ${this.#distrusted.reason}`;
  }

  /** Bytes of working memory that kernels hold. */
  get scratchBytes(): number {
    return Number(this.#call('llmx_scratch_bytes'));
  }

  addressOf(memory: ArrayBuffer): number {
    return Number(this.#call('llmx_address', memory));
  }

  has(kernel: string): boolean {
    return this.#handle(kernel) >= 0;
  }

  /**
   * Adds the kernels of another library, built against native/include/llmx/kernel.h.
   *
   * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE` where it does not load, or was built against another version of it
   */
  addLibrary(file: string): void {
    let handle: LibraryHandle;
    try {
      handle = this.#koffi.load(file);
    } catch (cause) {
      const [reason] = String(cause instanceof Error ? cause.message : cause).split('\n');
      throw unavailable(`the kernels in ${file} did not load (${reason})`, 'Build them on this machine.', cause);
    }
    checkAbi(handle.func('uint32_t llmx_library_abi()')() as number, file);
    this.#handles.push(handle);
    const entries: unknown = handle.func('void *llmx_library_attach(void *)')(this.#call('llmx_services'));
    if (entries !== null) this.#call('llmx_add_library', entries);
    this.#kernels.clear();
  }

  /**
   * Runs a kernel.
   *
   * @throws LlmxError `LLMX_NATIVE_FAILED`, `LLMX_NATIVE_ARGUMENT`
   */
  run(kernel: string, tensors: readonly (NativeTensor | undefined)[], numbers: readonly number[]): void {
    const handle = this.#handle(kernel);
    if (handle < 0) throw new LlmxError('LLMX_NATIVE_FAILED', `The engine has no kernel ${kernel}.`);
    if (tensors.length > MAX_TENSORS || numbers.length > MAX_NUMBERS)
      throw new LlmxError(
        'LLMX_NATIVE_ARGUMENT',
        `${kernel} was given ${tensors.length} tensors and ${numbers.length} numbers; the limits are ${MAX_TENSORS} and ${MAX_NUMBERS}.`,
      );
    this.#words[0] = tensors.length;
    this.#words[1] = numbers.length;
    for (let index = 0; index < tensors.length; index++) this.#writeTensor(index, tensors[index]);
    const start = (HEADER_BYTES + MAX_TENSORS * TENSOR_BYTES) / 8;
    for (let index = 0; index < numbers.length; index++) this.#doubles[start + index] = numbers[index]!;
    if (this.#functions.llmx_run(handle, this.#argumentsAddress) === 0) return;
    const reason = this.#call('llmx_failure') as string;
    const code = reason.startsWith('out of memory') ? 'LLMX_OUT_OF_MEMORY' : 'LLMX_NATIVE_FAILED';
    throw new LlmxError(code, `The kernel ${kernel} failed: ${reason}.`);
  }

  #writeTensor(index: number, tensor: NativeTensor | undefined): void {
    const words = this.#words;
    const start = (HEADER_BYTES + index * TENSOR_BYTES) / 4;
    if (tensor === undefined) {
      words.fill(0, start, start + TENSOR_BYTES / 4);
      return;
    }
    const { address, size, dtype, shape } = tensor;
    words[start] = address % TWO_32;
    words[start + 1] = address / TWO_32;
    words[start + 2] = size % TWO_32;
    words[start + 3] = size / TWO_32;
    words[start + 4] = DTYPES[dtype];
    words[start + 5] = shape.length;
    for (let axis = 0; axis < Math.min(shape.length, MAX_RANK); axis++) words[start + 6 + axis] = shape[axis]!;
  }

  #handle(kernel: string): number {
    let handle = this.#kernels.get(kernel);
    if (handle === undefined) {
      handle = this.#call('llmx_find', kernel, INSTRUCTION_SETS.indexOf(this.#instructionSet)) as number;
      this.#kernels.set(kernel, handle);
    }
    return handle;
  }

  #call(name: keyof typeof SIGNATURES, ...values: unknown[]): unknown {
    return this.#functions[name](...values) as unknown;
  }
}

async function loadKoffi(): Promise<Koffi> {
  try {
    const module = (await import('koffi')) as unknown as { default?: Koffi };
    return module.default ?? (module as unknown as Koffi);
  } catch (cause) {
    throw unavailable(`koffi, which calls it, has no build for ${PLATFORM}`, 'Use backend: wasm.', cause);
  }
}

function checkAbi(found: number, file: string): void {
  if (found === ABI) return;
  throw unavailable(
    `${file} speaks version ${found} of the kernel contract, this package version ${ABI}`,
    'Build it against the installed @llmx/backend-native, or install the version that it was built against.',
  );
}

/** What to do where the engine is missing. */
export const MISSING_HINT = 'Install g++ or clang++ and run `npm run setup` again; until then wasm is used.';

export const engineUnavailable = (): LlmxError =>
  unavailable(engineMissing() ?? 'its library is missing', MISSING_HINT);
