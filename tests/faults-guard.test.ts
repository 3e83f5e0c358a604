// The guard: steps with bad numbers are left out, a row of them stops the run, and a resumed run does the same.
import { afterAll, beforeAll, expect, test } from 'vitest';

import { failureOf, TinyRuns } from './support/tiny-run.ts';

/** Multiplies the gradients of some steps. */
const FAULT = `
import { definePlugin, tf, z } from '@llmx/core';

const config = z.strictObject({ steps: z.array(z.int()).default([]), factor: z.number().default(1) });
const scaled = (grads, factor) =>
  Object.fromEntries(Object.entries(grads).map(([path, grad]) => [path, tf.mul(grad, factor)]));

export default definePlugin({
  name: 'fault',
  version: '1.0.0',
  llmx: '>=0.1.0',
  config,
  setup: ({ steps, factor }) => ({
    hooks: { gradients: (grads, { step }) => (steps.includes(step) ? scaled(grads, factor) : undefined) },
  }),
});
`;
const faulty = (steps: readonly number[], factor: string, ...sets: readonly string[]): string[] => [
  `plugins=[{name: ./fault.ts, steps: ${JSON.stringify(steps)}, factor: ${factor}}]`,
  'train.checkpointEvery=1',
  'train.keepLast=99',
  ...sets,
];

let runs: TinyRuns;
beforeAll(async () => void (runs = await TinyRuns.create({ 'fault.ts': FAULT })), 60_000);
afterAll(() => runs.remove());

/** A host that asks to stop when the step is done. */
function stoppedAfter(step: number) {
  const controller = new AbortController();
  const log = (_level: string, message: string) => message.startsWith(`Step ${step} `) && controller.abort('SIGTERM');
  return { signal: controller.signal, log };
}

const skipped = (name: string): unknown[] =>
  runs.metrics(name).flatMap(({ step, skipped: is }) => (is === 1 ? [step] : []));

// 1e39 is Infinity as a float32.
test('steps whose gradients are not finite leave the state as it was, and are in the metrics', async () => {
  expect(await runs.train('skips', faulty([4, 5], '1.0e+39'))).toMatchObject({ steps: 12 });
  expect(runs.tensors('skips', 5)).toEqual(runs.tensors('skips', 3));
  expect(runs.tensors('skips', 6)).not.toEqual(runs.tensors('skips', 5));
  expect(skipped('skips')).toEqual([4, 5]);
  expect(runs.said).toContain('warn: Step 5 was left out: its gradient norm is Infinity.');
});

test('too many in a row stop the run with its state saved', async () => {
  const sets = faulty([6, 7, 8, 9], '1.0e+39');
  const error = await failureOf(runs.train('diverged', sets));
  expect(error).toMatchInlineSnapshot(
    `"LLMX_DIVERGED: Step 9 was left out, the last of 4 in a row, more than train.guard.maxSkips: its gradient norm is Infinity."`,
  );
  expect(runs.tensors('diverged', 9)).toEqual(runs.tensors('diverged', 5));
  expect(await runs.train('diverged', sets)).toMatchObject({ steps: 12 });
});

test('a run that was stopped between such steps goes on to the same end', async () => {
  const sets = faulty([6, 7, 8, 9], '1.0e+39');
  expect(await failureOf(runs.train('broken', sets, stoppedAfter(7)))).toContain('stopped by SIGTERM after step 7');
  expect(await failureOf(runs.train('broken', sets))).toContain('Step 9 was left out, the last of 4 in a row');
  expect(runs.tensors('broken', 9)).toEqual(runs.tensors('diverged', 9));
});

test('a spike is left out, also where its window was filled before a stop', async () => {
  const guard = 'train.guard={spikeSigma: 6, spikeWindow: 4}';
  const sets = faulty([7, 10], '1000', guard);
  await runs.train('spike', sets);
  expect(skipped('spike')).toEqual([7, 10]);
  expect(runs.tensors('spike', 7)).toEqual(runs.tensors('spike', 6));
  expect(await failureOf(runs.train('spike-stopped', sets, stoppedAfter(7)))).toContain('after step 7');
  await runs.train('spike-stopped', sets);
  expect(runs.tensors('spike-stopped', 12)).toEqual(runs.tensors('spike', 12));
  expect(runs.metrics('spike-stopped')).toEqual(runs.metrics('spike'));
});

test('without a guard every step is taken', async () => {
  await runs.train('unguarded', faulty([4], '1.0e+39', 'train.guard=false'));
  expect(runs.metrics('unguarded').at(-1)).toMatchObject({ valLoss: Number.NaN });
});
