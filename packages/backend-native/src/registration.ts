import { tf } from '@llmx/core';

import type { NativeKernel } from './engine.ts';
import { KERNELS } from './kernels/index.ts';
import type { NativeBackend } from './native-backend.ts';

const own = new Set<string>();

/** Names of the kernels that are C++. */
export const nativeKernelNames = (): readonly string[] => [...own].toSorted();

/** Kernels that give a list whatever its length; of others, a single result is given as it is. */
const LISTS = new Set(['SplitV']);

/** Registers one kernel for `native`, in place of whatever stood there. */
export function registerKernel(name: string, kernel: NativeKernel): void {
  own.add(name);
  if (tf.getKernel(name, 'native') !== undefined) tf.unregisterKernel(name, 'native');
  tf.registerKernel({
    kernelName: name,
    backendName: 'native',
    kernelFunc({ inputs, attrs, backend }) {
      const engine = backend as unknown as NativeBackend;
      const outputs = kernel(engine, inputs, attrs ?? {});
      return outputs.length === 1 && !LISTS.has(name) ? outputs[0]! : outputs;
    },
  });
}

function registerBorrowed(kernel: tf.KernelConfig): void {
  const kernelFunc: tf.KernelFunc = ({ inputs, attrs, backend }) => {
    const engine = backend as unknown as NativeBackend;
    let isList = false;
    const outputs = engine.borrowed(() => {
      const result = kernel.kernelFunc({ inputs, attrs: attrs ?? {}, backend });
      isList = Array.isArray(result);
      return result;
    });
    return isList ? outputs : outputs[0]!;
  };
  tf.registerKernel({ ...kernel, backendName: 'native', kernelFunc });
}

/** Registers all kernels: this package's, and tfjs-backend-cpu's for the rest. */
export function registerKernels(): void {
  for (const kernel of tf.getKernelsForBackend('cpu'))
    if (!kernel.kernelName.startsWith('Llmx') && !(kernel.kernelName in KERNELS)) registerBorrowed(kernel);
  for (const [name, kernel] of Object.entries(KERNELS)) registerKernel(name, kernel);
}
