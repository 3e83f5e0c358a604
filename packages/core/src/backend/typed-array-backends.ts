import { z } from 'zod';

import { LlmxError } from '../errors/index.ts';
import { defineBackend } from '../plugin/define.ts';
import { tf } from '../tensor/index.ts';
import { registerTypedArrayKernels } from './kernels/index.ts';

/** Why a backend did not come up, as the user needs to know it. */
export const unavailable = (name: string, reason: string, hint: string): LlmxError =>
  new LlmxError('LLMX_BACKEND_UNAVAILABLE', `The backend "${name}" cannot be used: ${reason}.`, { hint });

export const cpuBackend = defineBackend({
  name: 'cpu',
  summary: 'Plain JavaScript; works everywhere, slowly.',
  config: z.strictObject({}),
  build: () => ({
    tfjsName: 'cpu',
    precisions: ['fp32'],
    async load() {
      await import('@tensorflow/tfjs-backend-cpu');
      registerTypedArrayKernels('cpu');
      // The backend greets Node users with an advertisement on its first tensor.
      Object.assign(tf.findBackend('cpu'), { firstUse: false });
      return 'plain JavaScript, one thread';
    },
  }),
});

export const wasmBackend = defineBackend({
  name: 'wasm',
  summary: 'WebAssembly with XNNPACK matrix products, one thread; needs nothing installed.',
  config: z.strictObject({}),
  build: () => ({
    tfjsName: 'wasm',
    precisions: ['fp32'],
    async load() {
      await import('@tensorflow/tfjs-backend-wasm');
      const simd = await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT');
      if (!(await tf.setBackend('wasm')))
        throw unavailable('wasm', 'WebAssembly did not start', 'Use another backend; `llmx doctor` lists them.');
      registerTypedArrayKernels('wasm');
      return `WebAssembly${simd === true ? ' SIMD' : ''}, XNNPACK, one thread`;
    },
  }),
});
