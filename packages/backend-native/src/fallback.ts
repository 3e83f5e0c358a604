import { LlmxError, tf } from '@llmx/core';

import type { NativeKernel } from './engine.ts';

/** The kernel of that name of tfjs-backend-cpu, run on this backend's tensors: both keep typed arrays. */
export function fallback(name: string): NativeKernel {
  return (engine, inputs, attributes) => {
    const kernel = tf.getKernel(name, 'cpu');
    if (kernel === undefined)
      throw new LlmxError(
        'LLMX_NATIVE_FAILED',
        `Neither the native nor the cpu backend has a kernel ${name} for these inputs.`,
      );
    // Some ops give their inputs as a list.
    const given = Array.isArray(inputs)
      ? inputs
      : Object.fromEntries(Object.entries(inputs).filter(([, info]) => info !== undefined));
    return engine.borrowed((backend) =>
      kernel.kernelFunc({
        inputs: given,
        attrs: attributes as unknown as tf.NamedAttrMap,
        backend,
      }),
    );
  };
}
