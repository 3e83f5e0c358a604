// Set-up of every test file: where the C++ engine was built, tests that run on all backends run on it too.
import { locateEngine } from '../../packages/backend-native/src/library.ts';
import type { AddedTestBackend } from '../../packages/core/src/testing/backends.ts';

const native: AddedTestBackend = {
  name: 'native',
  async load() {
    const { tf } = await import('@llmx/core');
    await (await import('@llmx/backend-native')).registerNativeBackend();
    await tf.setBackend('native');
    // Kernels of our plugins, as their `run` hooks load them.
    await (await import('../../packages/plugin-xlstm/src/native-kernels.ts')).loadNativeKernels();
  },
};
const added: readonly AddedTestBackend[] = locateEngine() === undefined ? [] : [native];
Object.assign(globalThis, { [Symbol.for('llmx.testBackends')]: added });
