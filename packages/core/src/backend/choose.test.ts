import { tmpdir } from 'node:os';

import { expect, test } from 'vitest';
import { z } from 'zod';

import { builtin } from '../builtin.ts';
import { LlmxError } from '../errors/index.ts';
import { defineBackend, definePlugin } from '../plugin/define.ts';
import { Registry } from '../plugin/registry.ts';
import type { Backend } from '../plugin/backend-types.ts';
import { tf } from '../tensor/index.ts';
import { AUTO_ORDER, type BackendRequest, chooseBackend, probeBackends } from './choose.ts';

/** A backend that `auto` would prefer, if it came up. */
const plugin = (load: () => Promise<string>, telling: Partial<Backend> = {}) =>
  definePlugin({
    name: 'native-for-tests',
    version: '1.0.0',
    llmx: '*',
    components: [
      defineBackend({
        name: 'native',
        summary: 'For tests.',
        config: z.strictObject({}),
        build: () => ({ tfjsName: 'cpu', precisions: ['fp32', 'bf16'], load, ...telling }),
      }),
    ],
  });

// No package resolves from there, whatever is installed on this machine.
const request = (options: Partial<BackendRequest> = {}): BackendRequest => ({
  registry: new Registry([builtin]),
  selected: { name: 'auto' },
  precision: 'fp32',
  resolveFrom: [tmpdir()],
  ...options,
});
const named = (name: string) => request({ selected: { name } });
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error: LlmxError) => `${error.message} ${error.hint}`,
  );

test('auto takes the first backend that works', async () => {
  expect(await chooseBackend(request())).toMatchObject({
    name: 'wasm',
    detail: 'WebAssembly SIMD, XNNPACK, one thread',
  });
  expect(tf.getBackend()).toBe('wasm');
});

test('a named backend is loaded and made active', async () => {
  expect((await chooseBackend(named('cpu'))).name).toBe('cpu');
  expect(tf.getBackend()).toBe('cpu');
  expect(tf.add(1, 2).dataSync()[0]).toBe(3);
});

test('auto passes over a backend that cannot be used, and a backend with the precision asked for', async () => {
  const broken = plugin(() => Promise.reject(new LlmxError('LLMX_BACKEND_UNAVAILABLE', 'It is broken.')));
  expect((await chooseBackend(request({ registry: new Registry([builtin, broken]) }))).name).toBe('wasm');
  const working = plugin(() => import('@tensorflow/tfjs-backend-cpu').then(() => 'works'));
  const registry = new Registry([builtin, working]);
  expect(await chooseBackend(request({ registry, precision: 'bf16' }))).toMatchObject({
    name: 'native',
    detail: 'works',
  });
  const defect = plugin(() => Promise.reject(new TypeError('a defect')));
  await expect(chooseBackend(request({ registry: new Registry([builtin, defect]) }))).rejects.toThrow('a defect');
});

test('what is not installed, not known or not precise enough is refused with what to do', async () => {
  expect(await failure(chooseBackend(named('tfjs-node')))).toMatchInlineSnapshot(
    `"The backend "tfjs-node" cannot be used: @tensorflow/tfjs-node is not installed. npm install @tensorflow/tfjs-node@4.22.0"`,
  );
  expect(await failure(chooseBackend(named('tfjs-node-gpu')))).toMatchInlineSnapshot(
    `"The backend "tfjs-node-gpu" cannot be used: @tensorflow/tfjs-node-gpu is not installed. npm install @tensorflow/tfjs-node-gpu@4.22.0"`,
  );
  expect(await failure(chooseBackend(named('wasn')))).toMatchInlineSnapshot(
    `"There is no backend "wasn". Did you mean "wasm"?"`,
  );
  expect(await failure(chooseBackend({ ...named('wasm'), precision: 'bf16' }))).toMatchInlineSnapshot(
    `"No installed backend computes in bf16. Set precision: fp32."`,
  );
  expect(await failure(chooseBackend(request({ precision: 'bf16' })))).toMatchInlineSnapshot(
    `"No installed backend computes in bf16. Set precision: fp32."`,
  );
  const registry = new Registry([builtin, plugin(() => Promise.resolve(''))]);
  expect(await failure(chooseBackend({ ...named('cpu'), registry, precision: 'bf16' }))).toMatchInlineSnapshot(
    `"The backend "cpu" does not compute in bf16. Choose one of the backends that have it: native; or set precision: fp32."`,
  );
});

test('a probe tells of every backend that auto would try', async () => {
  const results = await probeBackends(request());
  expect(results.map(({ name }) => name)).toEqual(AUTO_ORDER.filter((name) => name !== 'native'));
  expect(results.filter(({ detail }) => detail !== undefined).map(({ name }) => name)).toEqual(['wasm', 'cpu']);
  expect(results.find(({ name }) => name === 'tfjs-node')!.reason!.code).toBe('LLMX_BACKEND_UNAVAILABLE');
});

test('a probe passes on what a backend tells about itself, if it can be used', async () => {
  const telling = { facts: () => [{ name: 'threads', value: '2' }], nativeKernels: () => ['LlmxMatmul'] };
  const probed = async (load: () => Promise<string>) => {
    const registry = new Registry([builtin, plugin(load, telling)]);
    return (await probeBackends(request({ registry }))).find(({ name }) => name === 'native');
  };
  expect(await probed(() => Promise.resolve('works'))).toEqual({
    name: 'native',
    detail: 'works',
    facts: [{ name: 'threads', value: '2' }],
    nativeKernels: ['LlmxMatmul'],
  });
  const reason = new LlmxError('LLMX_BACKEND_UNAVAILABLE', 'It is broken.');
  expect(await probed(() => Promise.reject(reason))).toEqual({ name: 'native', reason });
  const silent = (await probeBackends(request())).find(({ name }) => name === 'cpu');
  expect(silent).toMatchObject({ facts: [] });
  expect(silent).not.toHaveProperty('nativeKernels');
});
