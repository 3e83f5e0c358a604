import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import * as coreModule from '../index.ts';
import { runTasks, tf, train } from '../index.ts';
import { testEnvironment } from './test-environment.ts';

const PLUGIN = `
  import { definePlugin, defineSource, defineTask, EVALUATION, Registry, builtin, tf, z } from '@llmx/core';
  const { hash } = new Registry([builtin]).create('tokenizer', { name: 'bytes' }, {});
  const counting = defineSource({
    name: 'counting',
    summary: 'The numbers from 0 on.',
    config: z.strictObject({}),
    build: () => ({
      open: () => ({
        info: {
          fingerprint: 'counting',
          tokenizer: { name: 'bytes', hash },
          vocabSize: 257,
          endOfText: 256,
          splits: { train: { documents: 1, tokens: 100, bytes: 100 } },
        },
        split: () => ({
          tokens: 100,
          read: (start, length) => Uint16Array.from({ length }, (_, index) => start + index),
          close: () => undefined,
        }),
      }),
    }),
  });
  const size = defineTask({
    name: 'size',
    summary: 'Mean square of the hidden states of a text.',
    config: z.strictObject({ text: z.string().default('ab'), times: z.int().min(1).default(1) }),
    build: ({ text, times }) => ({
      async run({ model, params, tokenizer }) {
        const ids = [...tokenizer.encode(new TextEncoder().encode(text))];
        const mean = tf.tidy(() =>
          tf.mean(tf.square(model.hidden(params, { tokens: tf.tensor2d([ids], undefined, 'int32') }, EVALUATION))));
        const [square] = await mean.data();
        mean.dispose();
        return { square: times * square, tokens: ids.length };
      },
    }),
  });
  const failing = defineTask({
    name: 'failing',
    summary: 'Fails.',
    config: z.strictObject({}),
    build: () => ({ run: async () => Promise.reject(new Error('no questions')) }),
  });
  const patient = defineTask({
    name: 'patient',
    summary: 'Waits to be stopped.',
    config: z.strictObject({ fails: z.boolean().default(false) }),
    build: ({ fails }) => ({
      run: ({ signal }) => new Promise((resolve, reject) => {
        signal.addEventListener('abort', () => (fails ? reject(new Error('stopped')) : resolve({ half: 1 })));
        globalThis.llmxWaiting();
      }),
    }),
  });
  export default definePlugin({ name: 'tasks', version: '1.0.0', llmx: '^0.1.0', components: [counting, size, failing, patient] });`;

const CONFIG = {
  plugins: ['./tasks.ts'],
  data: { train: '.', source: 'counting' },
  model: { dModel: 8, contextLength: 8, blocks: [{ block: 'attention', heads: 2 }] },
  train: { steps: 2, batchSize: 2, evalEvery: 0 },
  backend: 'wasm',
};

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'llmx-tasks-'));
  writeFileSync(join(folder, 'tasks.ts'), PLUGIN);
  writeFileSync(join(folder, 'c.json'), JSON.stringify(CONFIG));
  await train({ file: 'c.json', name: 'tasked' }, environment());
});
afterAll(() => rmSync(folder, { recursive: true }));

const environment = (signal?: AbortSignal) => testEnvironment(folder, coreModule, signal && { signal });

const run = (...tasks: string[]) => runTasks({ target: 'tasked', tasks }, environment());

describe('tasks', () => {
  test('run in order with their options, on the weights of the checkpoint, and leave no tensors', async () => {
    const seen: unknown[] = [];
    const onTask = (progress: unknown) => void seen.push(progress);
    const first = await runTasks({ target: 'tasked', tasks: ['size'], onTask }, environment());
    const before = tf.memory().numTensors;
    const result = await run('{ name: size, text: abc, times: 3 }, size', 'size');
    expect(tf.memory().numTensors).toBe(before);
    expect(result).toMatchObject({ step: 2, backend: 'wasm', checkpoint: first.checkpoint });
    expect(result.tasks.map(({ task }) => task)).toEqual([
      { name: 'size', text: 'abc', times: 3 },
      { name: 'size', text: 'ab', times: 1 },
      { name: 'size', text: 'ab', times: 1 },
    ]);
    const [other, ...same] = result.tasks.map(({ metrics: values }) => values);
    expect(other!['tokens']).toBe(3);
    expect(same).toEqual([first.tasks[0]!.metrics, first.tasks[0]!.metrics]);
    expect(same[0]!['square']).toBeGreaterThan(0);
    expect(seen).toEqual([{ name: 'size', number: 1, count: 1 }]);
    const again = await runTasks({ target: 'tasked', tasks: ['size'], backend: 'cpu' }, environment());
    expect(again.backend).toBe('cpu');
    expect(again.tasks[0]!.metrics['square']).toBeCloseTo(first.tasks[0]!.metrics['square']!, 4);
  });

  test('that do not exist, or are given wrong options, are refused all at once', async () => {
    await expect(run('sise,{ name: size, times: 0 }', '{ name: size, texts: a }')).rejects
      .toThrowErrorMatchingInlineSnapshot(`
      [LlmxError: There is no task "sise".
      size.times is 0: expected at least 1.
      There is no setting "size.texts".]
    `);
    await expect(run('{ text: a }')).rejects.toMatchObject({ code: 'LLMX_USAGE' });
  });

  test('that fail carry the name of their plugin', async () => {
    await expect(run('failing')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: [plugin tasks 1.0.0] task "failing" failed: no questions.]`,
    );
    await expect(run('failing')).rejects.toMatchObject({ code: 'LLMX_PLUGIN_FAILED', plugin: 'tasks' });
  });

  test.each(['patient', '{ name: patient, fails: true }'])('are stopped by a signal: %s', async (task) => {
    const controller = new AbortController();
    Object.assign(globalThis, { llmxWaiting: () => controller.abort('SIGINT') });
    const stopped = runTasks({ target: 'tasked', tasks: [task, 'size'] }, environment(controller.signal));
    await expect(stopped).rejects.toMatchObject({
      code: 'LLMX_INTERRUPTED',
      message: 'The task "patient" was stopped by SIGINT.',
    });
  });
});
