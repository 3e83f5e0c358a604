import type { EvaluationResult, TrainEvent } from '@llmx/core';
import { expect, test } from 'vitest';

import type { View } from './display.ts';
import { metricsLine, TrainView } from './train-view.ts';

test('a line of metrics has loss, the terms and metrics of plugins, norm, rate, speed and memory, as far as there are any', () => {
  const all = {
    gradNorm: 1.234,
    lr: 0.0003,
    tokensSeen: 5,
    'loss/extra': 0.125,
    loss: 5.1234321,
    memoryMiB: 512.3,
    tokensPerSecond: 12345.6,
  };
  expect(metricsLine(all)).toBe('loss 5.1234  loss/extra 0.1250  gradNorm 1.23  lr 3.0e-4  12,346 tok/s  512 MiB');
  expect(metricsLine({ loss: NaN, lr: 0 })).toBe('loss NaN  lr 0.0e+0');
});

test('the start says what is frozen, and where the weights came from', () => {
  const notes: string[] = [];
  const nothing = () => undefined;
  const { show } = new TrainView({
    status: nothing,
    log: nothing,
    note: (text) => void notes.push(text),
    next: nothing,
  });
  const run = {
    totalSteps: 10,
    tokensPerStep: 1024,
    parameters: 1024,
    frozen: 12345,
    windowsPerEpoch: 7,
    backend: 'cpu',
  };
  const initialised = {
    checkpoint: `${process.cwd()}/runs/base/checkpoints/step-00000100`,
    step: 100,
    sha256: 'f',
    taken: { tensors: 20, values: 12345 },
    fresh: { tensors: 2, values: 1024 },
    leftOut: { tensors: 0, values: 0 },
  };
  const started = { kind: 'started', directory: `${process.cwd()}/runs/a`, step: 0, initialised, ...run } as const;
  show(started);
  show({ ...started, initialised: { ...initialised, leftOut: { tensors: 1, values: 64 } } });
  expect([...new Set(notes)]).toMatchInlineSnapshot(`
    [
      "runs/a: 1,024 parameters and 12,345 frozen, 1,024 tokens a step, 7 windows an epoch, backend cpu",
      "started from runs/base/checkpoints/step-00000100: 20 tensors (12,345 values) taken, 2 (1,024) new",
      "started from runs/base/checkpoints/step-00000100: 20 tensors (12,345 values) taken, 2 (1,024) new, 1 (64) of its objective left out",
    ]
  `);
});

test('events of a run become a status for terminals, lines for files, and notes for both', () => {
  const said: string[] = [];
  const view: View = {
    status: (text) => void said.push(`status: ${text}`),
    log: (text) => void said.push(`log: ${text}`),
    note: (text) => void said.push(`note: ${text}`),
    next: () => void said.push('next'),
  };
  const result: EvaluationResult = { loss: 2, perplexity: 7.389, bitsPerByte: 2.885, tokens: 100, bytes: 100 };
  const sizes = { totalSteps: 10, tokensPerStep: 1024, parameters: 12345, frozen: 0, windowsPerEpoch: 7 };
  const events: TrainEvent[] = [
    { kind: 'started', directory: `${process.cwd()}/runs/a`, step: 4, backend: 'cpu', ...sizes },
    { kind: 'logged', step: 10, metrics: { loss: 3, lr: 0.1 } },
    { kind: 'step', step: 10 },
    { kind: 'evaluating', step: 10, progress: { tokens: 1, totalTokens: 4 } },
    { kind: 'evaluated', step: 10, result },
    { kind: 'sampled', step: 10, prompt: 'A', text: ' b\n\u001b[2J' },
    { kind: 'saved', step: 10, directory: `${process.cwd()}/runs/a/checkpoints/step-00000010` },
  ];
  const { show } = new TrainView(view);
  for (const event of events) show(event);
  expect(said).toMatchInlineSnapshot(`
    [
      "status: backend cpu",
      "note: runs/a: 12,345 parameters, 1,024 tokens a step, 7 windows an epoch, backend cpu",
      "note: resumed after step 4",
      "next",
      "log: step 10/10  loss 3.0000  lr 1.0e-1",
      "status: step 10/10  loss 3.0000",
      "status: step 10/10  evaluating, 25 %",
      "status: step 10/10",
      "note: step 10/10  held out: loss 2.0000  perplexity 7.39  bits per byte 2.8850",
      "note: step 10/10  wrote: "A b\\n\\u001b[2J"",
      "note: step 10/10  saved runs/a/checkpoints/step-00000010",
    ]
  `);
});
