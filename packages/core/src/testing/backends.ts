import { registerTypedArrayKernels } from '../backend/index.ts';
import { tf } from '../tensor/index.ts';

/** A backend that a package adds to the tests, e.g. in a vitest set-up file: `load` registers it with TensorFlow.js. */
export interface AddedTestBackend {
  readonly name: string;
  load(): Promise<unknown>;
}

const ADDED = Symbol.for('llmx.testBackends');

const added = (globalThis as { readonly [ADDED]?: readonly AddedTestBackend[] })[ADDED] ?? [];

/**
 * Backends that tests run on: `composite` is plain JavaScript without llmx's kernels, the reference; `cpu` and `wasm`
 * have them; then those in the global list `Symbol.for('llmx.testBackends')`, if a set-up file filled it.
 */
export const TEST_BACKENDS: readonly string[] = ['composite', 'cpu', 'wasm', ...added.map(({ name }) => name)];

async function load(name: string): Promise<void> {
  const other = added.find((backend) => backend.name === name);
  if (other !== undefined) return void (await other.load());
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
export async function useBackend(name: string): Promise<void> {
  await load(name);
  await tf.setBackend(name);
  await tf.ready();
}
