import type { Compiler } from '@llmx/backend-native/build';

/** Builds the kernels as far as they are out of date; their library's path, and whether anything was built. */
export function buildKernels(options?: {
  readonly compiler?: Compiler | undefined;
  readonly sanitize?: boolean;
}): Promise<{ readonly output: string; readonly built: boolean }>;
