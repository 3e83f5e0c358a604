// Memory limit, leak guard, watchdog, and the thread that writes checkpoints.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { failureOf, TinyRuns } from './support/tiny-run.ts';

/** Keeps a tensor of each step from the fifth on. */
const LEAK = `
import { definePlugin, tf } from '@llmx/core';

export default definePlugin({
  name: 'leak',
  version: '1.0.0',
  llmx: '>=0.1.0',
  setup: () => ({
    hooks: { gradients: (grads, { step }) => void (step >= 5 && tf.keep(tf.cumsum(Object.values(grads)[0]))) },
  }),
});
`;

let runs: TinyRuns;
beforeAll(async () => {
  runs = await TinyRuns.create({ 'leak.ts': LEAK });
}, 60_000);
afterAll(() => runs.remove());

test('train.maxMemory saves, stops, and says what holds the memory', async () => {
  const sets = ['plugins=[]', 'train.maxMemory=1.5GiB'];
  await runs.train('whole', ['plugins=[]']);
  let calls = 0;
  const memory = () => ({ residentMiB: calls++ < 4 ? 1000 : 1536.5, peakMiB: 2 });
  const error = await failureOf(runs.train('large', sets, { memory }));
  expect(error.replaceAll(/\d+ MiB in other tensors/g, '<n> MiB in other tensors')).toMatchInlineSnapshot(
    `"LLMX_OUT_OF_MEMORY: The process holds 1537 MiB, more than train.maxMemory 1.5GiB: 0 MiB in parameters, 0 MiB in the optimizer's state, <n> MiB in other tensors, and 1536 MiB in work memory, code and buffers."`,
  );
  expect(await runs.train('large', ['plugins=[]', 'train.maxMemory=2GiB'])).toMatchObject({ steps: 12 });
  expect(runs.tensors('large', 12)).toEqual(runs.tensors('whole', 12));
});

test('in debug mode a leaking step is an error that names the op', async () => {
  expect(await runs.train('leaks')).toMatchObject({ steps: 12 });
  expect(await failureOf(runs.train('watched', [], { debug: true }))).toMatchInlineSnapshot(
    `"LLMX_LEAK: Step 5 left 1 tensor behind, made by: Cumsum."`,
  );
  expect(await runs.train('clean', ['plugins=[]'], { debug: true })).toMatchObject({ steps: 12 });
});

test('a hanging step is named while it hangs', () => {
  const core = JSON.stringify(new URL('../packages/core/dist/run/watchdog.js', import.meta.url).href);
  const program = `
    import { Watchdog } from ${core};
    const watchdog = new Watchdog('0.1s');
    await new Promise((resolve) => setTimeout(resolve, 300)); // nothing has begun
    watchdog.beat(41, 'evaluation');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
    await watchdog.stop();`;
  const { stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    cwd: fileURLToPath(new URL('..', import.meta.url)),
  });
  expect(status, stderr).toBe(0);
  expect(stderr).toBe('Warning: step 41 hangs: evaluation has taken more than train.watchdog 0.1s.\n');
});
