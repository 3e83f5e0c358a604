import { registerTypedArrayKernels } from '../backend/index.ts';
import { tf } from '../tensor/index.ts';

/**
 * Backends that tests run on everywhere: `composite` is plain JavaScript without llmx's kernels, the reference; `cpu`
 * and `wasm` have them.
 */
export const TEST_BACKENDS = ['composite', 'cpu', 'wasm'] as const;
export type TestBackend = (typeof TEST_BACKENDS)[number];

async function load(name: TestBackend): Promise<void> {
  if (name === 'wasm') {
    await import('@tensorflow/tfjs-backend-wasm');
    return registerTypedArrayKernels('wasm');
  }
  const { MathBackendCPU } = await import('@tensorflow/tfjs-backend-cpu');
  if (tf.findBackendFactory('composite') === null) {
    // Copied before llmx's kernels are there, so that ops on it run their composites.
    tf.copyRegisteredKernels('cpu', 'composite');
    tf.registerBackend('composite', () => Object.assign(new MathBackendCPU(), { firstUse: false }));
    registerTypedArrayKernels('cpu');
  }
  Object.assign(tf.findBackend(name), { firstUse: false });
}

/** Makes a backend the active one. */
export async function useBackend(name: TestBackend): Promise<void> {
  await load(name);
  await tf.setBackend(name);
  await tf.ready();
}
