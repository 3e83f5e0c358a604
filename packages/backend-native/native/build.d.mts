export interface Compiler {
  readonly command: string;
  readonly version: string;
}
export interface LibraryOptions {
  /** Sources compiled once per instruction set. */
  readonly kernels: readonly string[];
  /** Names of those among them that multiply in bfloat16, or read and write it. */
  readonly products?: readonly string[];
  /** Names of those among them that multiply in tile registers. */
  readonly tiled?: readonly string[];
  /** Other sources, compiled once. */
  readonly sources?: readonly string[];
  /** The library's file. */
  readonly output: string;
  /** Folder for objects. */
  readonly cache: string;
  readonly compiler?: Compiler | undefined;
  /** Whether to check addresses and undefined behaviour while running. */
  readonly sanitize?: boolean;
}
/** A C++ compiler of this machine: the environment's CXX, else g++ or clang++. */
export function findCompiler(): Compiler | undefined;
/** File name of a library on this platform. */
export function libraryName(name: string): string;
/** Builds one library of kernels, as far as it is out of date; whether anything was built. */
export function buildLibrary(options: LibraryOptions): Promise<boolean>;
/** Builds llmx's engine; its path, and whether anything was built. */
export function buildEngine(options?: {
  readonly compiler?: Compiler | undefined;
  readonly sanitize?: boolean;
  /** AMX in plain C++, on any machine: as the manual has it, or wrong. */
  readonly amxModel?: 'exact' | 'faulty';
}): Promise<{ readonly output: string; readonly built: boolean }>;
