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
      "note: step 10/10  saved runs/a/checkpoints/step-00000010",
    ]
  `);
});
