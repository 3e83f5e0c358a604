import { definePlugin, type Plugin } from '@llmx/core';
import { createRequire } from 'node:module';

import { nativeComponent } from './component.ts';

export { nativeBackend, nativeUnavailable, registerNativeBackend } from './component.ts';
export { requireShape } from './check.ts';
export { addKernels, type KernelLibrary } from './plugin-kernels.ts';
export { locateLibrary } from './library.ts';
export type { Engine, NativeKernel, TensorInfo } from './engine.ts';

const { name, version } = createRequire(import.meta.url)('../package.json') as {
  name: string;
  version: string;
};

/** The backend `native`, as a plugin: `auto` finds it where this package is installed. */
const plugin: Plugin = definePlugin({ name, version, llmx: '^0.1.0', components: [nativeComponent] });

export default plugin;
