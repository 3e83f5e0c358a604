import type { NativeKernel } from './engine.ts';
import { nativeBackend } from './component.ts';
import { registerKernel } from './registration.ts';

/** Kernels that a plugin brings for this backend. */
export interface KernelLibrary {
  /** A library built with `@llmx/backend-native/build` against `llmx/kernel.h`. */
  readonly library: string;
  /** By TensorFlow.js name: the plugin's own op names, never another's. */
  readonly kernels: Readonly<Record<string, NativeKernel>>;
}

/**
 * Loads a plugin's C++ kernels and registers them. To be called once the backend is loaded, e.g. in a plugin's `run` hook.
 *
 * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE` where the library does not load or was built against another version of
 *   the contract
 */
export function addKernels({ library, kernels }: KernelLibrary): void {
  nativeBackend().library.addLibrary(library);
  for (const [name, kernel] of Object.entries(kernels)) registerKernel(name, kernel);
}
