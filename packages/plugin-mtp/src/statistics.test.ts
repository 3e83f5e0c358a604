import { type Batch, type Model, tf } from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { beforeAll, beforeEach, expect, test } from 'vitest';

import { acceptance, reported, samplePositions } from './statistics.ts';

beforeAll(() => useBackend('cpu'));
beforeEach(() => {
  tf.engine().startScope();
  return () => tf.engine().endScope();
});

const VOCAB = 5;

/** Hidden states that choose the given tokens, for a model whose logits are its hidden states. */
const choosing = (ids: readonly number[]) => tf.cast(tf.oneHot(tf.tensor1d([...ids], 'int32'), VOCAB), 'float32');
const model = { vocabSize: VOCAB, dModel: VOCAB, logits: (_params: unknown, hidden: tf.Tensor) => hidden } as Model;

/** A batch of one window with labels per position and view. */
const batchOf = (labels: number[][]): Batch => ({
  tokens: tf.zeros([1, labels.length], 'int32'),
  labels: tf.tensor3d([labels], undefined, 'int32'),
});

test('heads are held against what the next-token head chooses once it is there', () => {
  const nextToken = tf.expandDims(choosing([1, 2, 3, 4, 0, 1]), 0); // at positions 0 to 5
  const labels = [
    [1, 2, 3],
    [2, 3, 4],
    [0, 4, 0], // the next-token head says 3: wrong
    [4, 0, -1], // the third token ahead is in another document
    [0, -1, -1],
    [1, -1, -1],
  ];
  const positions = [0, 1, 2, 3];
  // Right at 0 and 1, wrong at 2, right at 3; then right at 0, wrong at 1, right at 2, right without a target at 3.
  const second = choosing([2, 3, 1, 0]);
  const third = choosing([3, 1, 0, 1]);
  const sums = acceptance({ model, params: {}, batch: batchOf(labels) }, positions, nextToken, [second, third]);
  const values = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum.dataSync()[0]]));
  expect(values).toEqual({
    'multiToken/sampled/1': 4,
    'multiToken/correct/1': 3,
    'multiToken/sampled/2': 4,
    'multiToken/agreed/2': 3,
    'multiToken/accepted/2': 3,
    'multiToken/sampled/3': 3,
    'multiToken/agreed/3': 2,
    'multiToken/accepted/3': 1,
  });
  const report = reported({ loss: 2, ...values });
  expect(report).toEqual({
    loss: 2,
    accuracy: 0.75,
    'acceptance/head2': 0.75,
    'acceptance/head3': 2 / 3,
    'acceptance/tokensPerPass': 1 + 3 / 4 + 1 / 3,
  });
});

test('reported sums become means; what has no targets is left out, other metrics stay', () => {
  expect(
    reported({
      gradNorm: 1,
      'multiToken/loss/1': 6,
      'multiToken/targets/1': 3,
      'multiToken/loss/2': 0,
      'multiToken/targets/2': 0,
      'multiToken/sampled/1': 0,
      'multiToken/correct/1': 0,
    }),
  ).toEqual({ gradNorm: 1, 'loss/head1': 2 });
  expect(reported({ loss: 1 })).toBeUndefined();
});

test('positions lie where all tokens ahead are in the window, few against the batch', () => {
  expect(samplePositions([2, 4], 4)).toEqual([4]);
  for (const [batch, time, lookahead] of [
    [1, 8, 8],
    [3, 40, 5],
    [16, 256, 8],
    [1, 1, 1],
  ] as const) {
    const positions = samplePositions([batch, time], lookahead);
    expect(positions.length).toBeGreaterThan(0);
    expect(positions.length).toBeLessThanOrEqual(Math.min(64, Math.ceil((batch * time) / 32)));
    expect(new Set(positions).size).toBe(positions.length);
    for (const position of positions) {
      expect((position % time) + lookahead).toBeLessThanOrEqual(time);
      expect(position).toBeLessThan(batch * time);
    }
  }
});
