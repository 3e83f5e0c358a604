import { tf } from '../tensor/index.ts';
import { useBackend } from './backends.ts';
import { KERNEL_LISTS } from './kernel-lists.ts';

/** Names of the kernels that `run` dispatches on the reference backend, where every op runs its composite. */
export async function dispatchedKernels(run: () => void): Promise<string[]> {
  await useBackend('composite');
  const { kernelNames } = await tf.profile(() => {
    tf.tidy(run);
    return [];
  });
  // The profiler lists custom gradients by the name of their scope, not by a kernel's.
  const registered = new Set(tf.getKernelsForBackend('composite').map(({ kernelName }) => kernelName));
  return kernelNames.filter((name) => registered.has(name)).toSorted();
}

/**
 * Fails if `run` needs a kernel that a backend of TensorFlow.js does not have, on machines without that backend too:
 * what it dispatches is compared with the lists of tfjs-node-gpu and webgpu, and it is run on wasm.
 */
export async function expectKernelCoverage(run: () => void): Promise<void> {
  const needed = await dispatchedKernels(run);
  for (const [backend, kernels] of Object.entries(KERNEL_LISTS)) {
    const missing = needed.filter((kernel) => !kernels.includes(kernel));
    if (missing.length > 0) throw new Error(`The backend ${backend} has no kernel ${missing.join(', ')}.`);
  }
  await useBackend('wasm');
  tf.tidy(run);
}
