import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import * as coreModule from '../index.ts';
import { prepareDataset, type ProfileOptions, profileTraining, tf } from '../index.ts';
import { testEnvironment } from './test-environment.ts';

const CONFIG = {
  data: { train: 'data' },
  model: { dModel: 16, contextLength: 32, blocks: [{ block: 'attention', repeat: 1, heads: 2 }] },
  optimizer: { name: 'adamw', lr: 0.01 },
  // Shorter than what is profiled.
  train: { steps: 2, batchSize: 2, gradAccumulation: 2 },
  backend: 'wasm',
};

const plugin = (definition: string): string =>
  `import { defineBackend, definePlugin, z } from '@llmx/core';
export default definePlugin({ name: 'own', version: '1.0.0', llmx: '*', ${definition} });`;

/** The cpu backend under another name, which tells of itself what a native one does. */
const TELLING_BACKEND = plugin(`components: [defineBackend({
  name: 'telling',
  summary: 'For tests.',
  config: z.strictObject({}),
  build: (_config, { create }) => {
    const cpu = create('backend', { name: 'cpu' }, { resolveFrom: [], precision: 'fp32' });
    return {
      ...cpu,
      peaks: () => ({ gflops: 1e9, gigabytesPerSecond: 1e9, threads: 3 }),
      nativeKernels: () => ['LlmxNorm', 'Other'],
    };
  },
})]`);

const FAILING_STEP = plugin(`setup: () => ({ hooks: { stepEnd({ step }) {
  if (step === 2) throw new TypeError('broken');
} } })`);

let folder: string;
beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-profile-'));
  const text = 'Once more: the quick brown fox jumps over the lazy dog.\n'.repeat(40);
  fs.writeFileSync(path.join(folder, 'a.txt'), text);
  const instance = new coreModule.Registry([coreModule.builtin]).create('tokenizer', { name: 'bytes' }, {});
  await prepareDataset({
    inputs: [path.join(folder, 'a.txt')],
    out: path.join(folder, 'data'),
    tokenizer: { name: 'bytes', instance },
    textField: 'text',
    valFraction: 0,
    host: environment().host,
  });
  fs.writeFileSync(path.join(folder, 'c.json'), JSON.stringify(CONFIG));
  for (const [name, source] of Object.entries({ telling: TELLING_BACKEND, failing: FAILING_STEP })) {
    fs.writeFileSync(path.join(folder, `${name}.ts`), source);
    const config = { extends: './c.json', plugins: [`./${name}.ts`] };
    fs.writeFileSync(path.join(folder, `${name}.json`), JSON.stringify(config));
  }
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const environment = (signal?: AbortSignal) => testEnvironment(folder, coreModule, signal && { signal });

const profile = (options: Partial<ProfileOptions> = {}, signal?: AbortSignal) =>
  profileTraining({ file: 'c.json', steps: 3, warmup: 1, ...options }, environment(signal));

const kernelsOf = (backend: string) => new Set(tf.getKernelsForBackend(backend));

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

describe('a profile', () => {
  test.each(['wasm', 'cpu'])('on %s adds up', async (backend) => {
    const result = await profile({ sets: [`backend=${backend}`] });
    expect(result).toMatchObject({ backend, steps: 3, warmup: 1, tokensPerStep: 2 * 2 * 32, trace: null });
    const { kernels, kernelMilliseconds, stepMilliseconds, phases, tokensPerSecond } = result;
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    expect(kernelMilliseconds).toBeCloseTo(sum(kernels.map(({ milliseconds }) => milliseconds)));
    expect(kernelMilliseconds).toBeGreaterThan(0);
    expect(kernelMilliseconds).toBeLessThan(stepMilliseconds);
    expect(sum(Object.values(phases))).toBeLessThanOrEqual(stepMilliseconds);
    for (const time of Object.values(phases)) expect(time).toBeGreaterThan(0);
    expect(sum(kernels.map(({ share }) => share))).toBeCloseTo(kernelMilliseconds / stepMilliseconds);
    expect(tokensPerSecond).toBeCloseTo(128_000 / stepMilliseconds);
    const product = kernels.find(({ kernel }) => kernel === (backend === 'wasm' ? 'LlmxMatmul' : 'BatchMatMul'));
    expect(product).toMatchObject({ native: null, limit: { share: expect.any(Number) } });
    expect(product!.gflops).toBeGreaterThan(0);
    expect(product!.calls % 2, 'calls of two micro-batches').toBe(0);
  });

  test('leaves nothing behind: no run, no tensors, no changed kernels', async () => {
    await profile();
    const [before, files] = [kernelsOf('wasm'), fs.readdirSync(folder)];
    const { numTensors } = tf.memory();
    await profile();
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(kernelsOf('wasm')).toEqual(before);
    expect([...kernelsOf('wasm')].every((kernel) => before.has(kernel))).toBe(true);
    expect(fs.readdirSync(folder)).toEqual(files);
  });

  test('that fails in a step leaves the kernels as they were', async () => {
    await profile();
    const before = kernelsOf('wasm');
    await expect(profile({ file: 'failing.json' })).rejects.toMatchObject({ code: 'LLMX_HOOK_FAILED', plugin: 'own' });
    expect([...kernelsOf('wasm')].every((kernel) => before.has(kernel))).toBe(true);
  });

  test('can begin with the first step', async () => {
    const steps: number[] = [];
    const result = await profile({ steps: 1, warmup: 0, onProgress: ({ step }) => steps.push(step) });
    expect(result.kernels.every(({ calls }) => Number.isInteger(calls))).toBe(true);
    expect(steps).toEqual([0, 1]);
  });

  test('takes peaks and names of native kernels from the backend', async () => {
    const { backend, peaks, kernels } = await profile({ file: 'telling.json', sets: ['backend=telling'] });
    expect(backend).toBe('telling');
    expect(peaks).toEqual({ gflops: 1e9, gigabytesPerSecond: 1e9, threads: 3 });
    expect(kernels.filter(({ native }) => native).map(({ kernel }) => kernel)).toEqual(['LlmxNorm']);
    expect(kernels.every(({ native }) => native !== null)).toBe(true);
  });

  test('stops when it is asked to', async () => {
    const controller = new AbortController();
    const onProgress = ({ step }: { step: number }): void => {
      if (step === 2) controller.abort('SIGINT');
    };
    await expect(profile({ onProgress, trace: 'stopped.json' }, controller.signal)).rejects.toMatchObject({
      code: 'LLMX_INTERRUPTED',
      message: 'Profiling was stopped by SIGINT.',
    });
    expect(fs.existsSync(path.join(folder, 'stopped.json'))).toBe(false);
  });
});

describe('a trace', () => {
  const inside = ({ ts, dur }: TraceEvent, outer: TraceEvent): boolean =>
    ts >= outer.ts && ts + dur <= outer.ts + outer.dur + 1e-6; // sums of decimals

  test('has every call within its step, and the phases of each micro-batch', async () => {
    const file = path.join(folder, 'trace.json');
    const { trace, kernels } = await profile({ trace: 'trace.json', steps: 2 });
    expect(trace).toBe(file);
    const { traceEvents } = JSON.parse(fs.readFileSync(file, 'utf8')) as { traceEvents: TraceEvent[] };
    const spans = traceEvents.filter(({ ph }) => ph === 'X');
    const row = (tid: number) => spans.filter((event) => event.tid === tid);
    const [calls, steps, phases] = [
      row(1),
      row(2).filter(({ name }) => name.startsWith('step ')),
      row(2).filter(({ name }) => !name.startsWith('step ')),
    ];
    expect(steps.map(({ name }) => name)).toEqual(['step 2', 'step 3']);
    const micro = ['forward', 'backward'];
    const step = [...micro, ...micro, 'optimizer'];
    expect(phases.map(({ name }) => name)).toEqual([...step, ...step]);
    for (const event of [...phases, ...calls]) expect(steps.filter((outer) => inside(event, outer))).toHaveLength(1);
    expect(calls).toHaveLength(kernels.reduce((sum, { calls: count }) => sum + 2 * count, 0));
    expect(calls.find(({ name }) => name === 'LlmxMatmul')!.args).toMatchObject({
      inputs: { a: expect.any(Array), b: expect.any(Array) },
      outputs: [expect.any(Array)],
      bytes: expect.any(Number),
      operations: expect.any(Number),
    });
  });

  test('is refused before any work where it cannot be written', async () => {
    await expect(profile({ trace: 'c.json' })).rejects.toMatchObject({ code: 'LLMX_OUTPUT_EXISTS' });
    await expect(profile({ trace: 'nowhere/trace.json' })).rejects.toMatchObject({ code: 'LLMX_IO_FAILED' });
  });
});
