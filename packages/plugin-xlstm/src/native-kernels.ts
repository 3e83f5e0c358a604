import { tf } from '@llmx/core';

let isLoaded = false;

/**
 * Loads the C++ kernels where the active backend is `native` and their library is there; whether it is. Without them the
 * composites run.
 *
 * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE` where the library was built for another version of the backend
 */
export async function loadNativeKernels(): Promise<boolean> {
  if (tf.getBackend() !== 'native') return false;
  if (isLoaded) return true;
  // The backend is active, so its package is there; a plugin that never runs on it does without.
  const { addKernels } = await import('@llmx/backend-native');
  const { kernelLibrary, nativeKernels } = await import('./native-kernel-calls.ts');
  const library = kernelLibrary();
  if (library === undefined) return false;
  addKernels({ library, kernels: nativeKernels });
  isLoaded = true;
  return true;
}
