import fs from 'node:fs';
import { fileURLToPath } from 'node:url';

import { tf } from '@llmx/core';

const EXTENSION: Partial<Record<NodeJS.Platform, string>> = { win32: '.dll', darwin: '.dylib' };

/** Where native/build.mjs puts the library. */
export const KERNEL_LIBRARY = fileURLToPath(
  new URL(`../build/xlstm-kernels${EXTENSION[process.platform] ?? '.so'}`, import.meta.url),
);

let isLoaded = false;

/**
 * Loads the C++ kernels where the active backend is `native` and they were built; whether they are there. Without them the
 * composites run.
 *
 * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE` where the library was built for another version of the backend
 */
export async function loadNativeKernels(): Promise<boolean> {
  if (tf.getBackend() !== 'native' || !fs.existsSync(KERNEL_LIBRARY)) return false;
  if (isLoaded) return true;
  // The backend is active, so its package is there; a plugin that never runs on it does without.
  const { addKernels } = await import('@llmx/backend-native');
  const { nativeKernels } = await import('./native-kernel-calls.ts');
  addKernels({ library: KERNEL_LIBRARY, kernels: nativeKernels });
  isLoaded = true;
  return true;
}
