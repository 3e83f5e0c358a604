import { tf } from '../tensor/index.ts';

/** A call of a kernel, made by an op and not by another kernel. */
export interface KernelCall {
  readonly kernel: string;
  /** Clock at its start, ms. */
  readonly start: number;
  readonly milliseconds: number;
  readonly inputs: Readonly<Record<string, tf.TensorInfo>>;
  readonly outputs: readonly tf.TensorInfo[];
  readonly attributes: Readonly<Record<string, unknown>>;
}

type Registered = ReturnType<typeof tf.getKernelsForBackend>[number];

/** Optional inputs may be given as null or undefined. */
const present = (inputs: object): Record<string, tf.TensorInfo> =>
  Object.fromEntries(
    (Object.entries(inputs) as [string, tf.TensorInfo | null | undefined][]).flatMap(([name, info]) =>
      info === null || info === undefined ? [] : [[name, info]],
    ),
  );

function replaceKernel(from: Registered, to: Registered): void {
  tf.unregisterKernel(from.kernelName, from.backendName);
  tf.registerKernel(to);
}

/**
 * Times every kernel that a backend has registered by now. Kernels that kernels call are part of these: each moment
 * counts once. A kernel of a device that works on its own is timed until the call returns.
 *
 * @param backend name under which TensorFlow.js knows the backend
 * @param now milliseconds of a clock that never goes back
 * @param onCall told after each call that did not fail
 * @returns puts the kernels back as they were
 */
export function timeKernels(backend: string, now: () => number, onCall: (call: KernelCall) => void): () => void {
  let isInside = false;
  const timed = (kernel: Registered): Registered => ({
    ...kernel,
    kernelFunc(parameters) {
      if (isInside) return kernel.kernelFunc(parameters);
      isInside = true;
      const start = now();
      try {
        const result = kernel.kernelFunc(parameters);
        const milliseconds = now() - start;
        const outputs = Array.isArray(result) ? result : [result];
        const { inputs, attrs = {} } = parameters;
        onCall({ kernel: kernel.kernelName, start, milliseconds, inputs: present(inputs), outputs, attributes: attrs });
        return result;
      } finally {
        isInside = false;
      }
    },
  });
  const pairs = tf.getKernelsForBackend(backend).map((kernel) => ({ kernel, replacement: timed(kernel) }));
  for (const { kernel, replacement } of pairs) replaceKernel(kernel, replacement);
  return () => {
    // What somebody else has put in the place meanwhile stays.
    for (const { kernel, replacement } of pairs)
      if (tf.getKernel(kernel.kernelName, backend) === replacement) replaceKernel(replacement, kernel);
  };
}
