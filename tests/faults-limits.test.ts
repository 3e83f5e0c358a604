// Signals and limits: what stops a run, what it leaves, and that it ends with the same bits when it goes on.
import fs from 'node:fs';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { readMetrics, tf, type TrainEvent } from '@llmx/core';

import { failureOf, TinyRuns } from './support/tiny-run.ts';

let runs: TinyRuns;
beforeAll(async () => {
  runs = await TinyRuns.create();
  await runs.train('whole');
}, 60_000);
afterAll(() => runs.remove());

const said = (text: string): string => text.replaceAll(runs.folder, '<folder>');

const SAMPLE = 'train.sample={prompt: "3 sheep", tokens: 12}';
type Sampled = Extract<TrainEvent, { kind: 'sampled' }>;

test('evaluation and sampling leave the training state as it is, bit for bit', async () => {
  await runs.train('unevaluated', ['train.evalEvery=0', SAMPLE]);
  expect(runs.tensors('unevaluated', 12)).toEqual(runs.tensors('whole', 12));
  expect(runs.said).toContain('warn: train.sample has no effect, since there is no evaluation.');
  const texts: Sampled[] = [];
  const onEvent = (event: TrainEvent) => void (event.kind === 'sampled' && texts.push(event));
  const tensors = tf.memory().numTensors;
  await runs.train('sampled', [SAMPLE], { debug: true }, { onEvent });
  expect(tf.memory().numTensors).toBe(tensors);
  expect(texts.map(({ step, prompt }) => [step, prompt])).toEqual([4, 8, 12].map((step) => [step, '3 sheep']));
  expect(new Set(texts.map(({ text }) => text)).size).toBe(3);
  expect(runs.tensors('sampled', 12)).toEqual(runs.tensors('whole', 12));
  expect(runs.metrics('sampled')).toEqual(runs.metrics('whole'));
});

test('a signal while a text is written has the evaluation done again', async () => {
  const controller = new AbortController();
  const onEvent = (event: TrainEvent) => {
    const isEvaluated = event.kind === 'evaluating' && event.progress.tokens === event.progress.totalTokens;
    if (isEvaluated) controller.abort('SIGTERM');
  };
  const stops = runs.train('written', [SAMPLE], { signal: controller.signal }, { onEvent });
  expect(await failureOf(stops)).toContain('stopped by SIGTERM after step 4; its state is saved');
  expect(runs.metrics('written').at(-1)).toMatchObject({ kind: 'train', step: 4 });
  await runs.train('written');
  expect(runs.tensors('written', 12)).toEqual(runs.tensors('whole', 12));
  expect(runs.metrics('written')).toEqual(runs.metrics('whole'));
});

/** A host whose signal is aborted when its memory is asked for, which is when a step is logged, the `calls`th time. */
function stoppedAt(calls: number, reason: string) {
  const controller = new AbortController();
  let count = 0;
  const memory = () => {
    count += 1;
    if (count === calls) controller.abort(reason);
    return { residentMiB: 1, peakMiB: 2 };
  };
  return { signal: controller.signal, memory };
}

test('stopped before its evaluation is done, a run saves, and evaluates when it goes on', async () => {
  // Logged: 1, 3, 4; the evaluation of step 4 is due then.
  expect(said(await failureOf(runs.train('stopped', [], stoppedAt(3, 'SIGTERM'))))).toMatchInlineSnapshot(
    `"LLMX_INTERRUPTED: Training was stopped by SIGTERM after step 4; its state is saved."`,
  );
  expect(runs.metrics('stopped').at(-1)).toMatchObject({ kind: 'train', step: 4 });
  await runs.train('stopped');
  expect(runs.tensors('stopped', 12)).toEqual(runs.tensors('whole', 12));
  expect(runs.metrics('stopped')).toEqual(runs.metrics('whole'));
});

test('a signal that came during the preparations is obeyed before the first step', async () => {
  const before = await failureOf(runs.train('early', [], { signal: AbortSignal.abort('SIGTERM') }));
  expect(before).toMatchInlineSnapshot(`"LLMX_INTERRUPTED: Training was stopped by SIGTERM before its first step."`);
  expect(fs.readdirSync(runs.path('early', 'checkpoints'))).toEqual([]);
  await failureOf(runs.train('early', [], stoppedAt(2, 'SIGTERM')));
  const saved = runs.metrics('early');
  const again = await failureOf(runs.train('early', [], { signal: AbortSignal.abort('SIGINT') }));
  expect(again).toBe('LLMX_INTERRUPTED: Training was stopped by SIGINT after step 3; its state is saved.');
  expect(runs.metrics('early')).toEqual(saved);
});

test('train.maxTime saves and stops', async () => {
  const hours = 3_600_000;
  let time = 0;
  const now = () => time;
  const memory = () => {
    time += hours; // each logged step takes an hour
    return { residentMiB: 1, peakMiB: 2 };
  };
  const stops = runs.train('timed', ['train.maxTime=0.001s'], { now, memory });
  expect(await failureOf(stops)).toMatchInlineSnapshot(
    `"LLMX_INTERRUPTED: Training was stopped by train.maxTime 0.001s after step 2; its state is saved."`,
  );
  expect(runs.said).toContain('info: train.maxTime 0.001s is over: finishing the step and saving.');
  await runs.train('timed', ['train.maxTime=2h']);
  expect(runs.tensors('timed', 12)).toEqual(runs.tensors('whole', 12));
});

test('train.tokens ends the run early on the schedule of the whole one', async () => {
  // 64 tokens a step; 300 are reached in the fifth.
  expect(await runs.train('counted', ['train.tokens=300'])).toMatchObject({ steps: 5, tokens: 320 });
  expect(runs.tensors('counted', 5)).toEqual(runs.tensors('whole', 5));
  expect(await runs.train('counted', ['train.tokens=0.3ktok'])).toMatchObject({ steps: 5 });
  expect(await runs.train('counted')).toMatchObject({ steps: 12 });
  expect(runs.tensors('counted', 12)).toEqual(runs.tensors('whole', 12));
  const rates = readMetrics(runs.path('counted', 'metrics.jsonl')).map(({ metrics }) => metrics['lr']);
  expect(new Set(rates).size).toBeGreaterThan(3);
});
