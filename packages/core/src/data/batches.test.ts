import { describe, expect, test } from 'vitest';

import type { TokenReader } from '../plugin/types.ts';
import {
  assembleBatch,
  bytesOfTargets,
  evaluationWindows,
  requireWindows,
  trainingBatches,
  windowCount,
} from './batches.ts';
import { windowOrder } from './order.ts';

const END = 9;

function readerOf(ids: readonly number[]): TokenReader {
  const all = Uint16Array.from(ids);
  return { tokens: all.length, read: (start, length) => all.subarray(start, start + length), close: () => undefined };
}

/** The labels of one view. */
const view = (labels: Int32Array, lookahead: number, index: number) =>
  [...labels].filter((_, position) => position % lookahead === index);

describe('windowCount', () => {
  test.each([
    [0, 4, 0],
    [4, 4, 0],
    [5, 4, 1],
    [8, 4, 1],
    [9, 4, 2],
    [100, 1, 99],
  ])('%i tokens, context length %i: %i windows', (tokens, contextLength, count) => {
    expect(windowCount(tokens, contextLength)).toBe(count);
  });

  test('a split without a window', () => {
    expect(requireWindows(5, 4, 'val')).toBe(1);
    expect(() => requireWindows(4, 4, 'val')).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The split "val" holds 4 tokens; one window of contextLength 4 needs 5.]`,
    );
  });
});

describe('assembleBatch', () => {
  // Documents: 1 2 END | 3 END | 4 5 6 7 ...
  const reader = readerOf([1, 2, END, 3, END, 4, 5, 6, 7, 8, 1, 2, 3]);
  const shape = { reader, time: 6, endOfText: END };

  test('stream: the next token is always a label', () => {
    const batch = assembleBatch({ ...shape, windows: [0, 1], lookahead: 1, packing: 'stream' });
    expect(batch).toEqual({
      batch: 2,
      time: 6,
      lookahead: 1,
      tokens: Int32Array.of(1, 2, END, 3, END, 4, 5, 6, 7, 8, 1, 2),
      labels: Int32Array.of(2, END, 3, END, 4, 5, 6, 7, 8, 1, 2, 3),
    });
  });

  test('stream: later views stay within the document and the window', () => {
    const { labels } = assembleBatch({ ...shape, windows: [0], lookahead: 3, packing: 'stream' });
    expect(view(labels, 3, 0)).toEqual([2, END, 3, END, 4, 5]);
    expect(view(labels, 3, 1)).toEqual([END, -1, -1, -1, -1, -1]);
    expect(view(labels, 3, 2)).toEqual([-1, -1, -1, -1, -1, -1]);
    const second = assembleBatch({ ...shape, windows: [1], lookahead: 3, packing: 'stream' });
    expect(view(second.labels, 3, 1)).toEqual([7, 8, 1, 2, 3, -1]);
    expect(view(second.labels, 3, 2)).toEqual([8, 1, 2, 3, -1, -1]);
  });

  test('documents: nothing crosses an end of text', () => {
    const batch = assembleBatch({ ...shape, windows: [0], lookahead: 2, packing: 'documents' });
    expect(view(batch.labels, 2, 0)).toEqual([2, END, -1, END, -1, 5]);
    expect(view(batch.labels, 2, 1)).toEqual([END, -1, -1, -1, -1, -1]);
    expect(batch.segments).toEqual(Int32Array.of(0, 0, 0, 1, 1, 2));
    expect(batch.positions).toEqual(Int32Array.of(0, 1, 2, 0, 1, 0));
  });

  test('documents: each row starts anew', () => {
    const batch = assembleBatch({ ...shape, windows: [1, 0], lookahead: 1, packing: 'documents' });
    expect(batch.segments).toEqual(Int32Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2));
    expect(batch.positions).toEqual(Int32Array.of(0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 0));
  });

  test('a window that is shorter than the lookahead', () => {
    const { labels } = assembleBatch({ ...shape, time: 1, windows: [0], lookahead: 4, packing: 'stream' });
    expect(labels).toEqual(Int32Array.of(2, -1, -1, -1));
  });
});

describe('trainingBatches', () => {
  const reader = readerOf(Array.from({ length: 41 }, (_, index) => index));
  const shape = { reader, seed: 3, time: 4, lookahead: 1, packing: 'stream', endOfText: 99 } as const;

  test('sequences are the windows in the order of each epoch', () => {
    const batches = trainingBatches({ ...shape, batchSize: 3, gradAccumulation: 2 });
    expect(batches.windowsPerEpoch).toBe(10);
    const seen = [1, 2, 3, 4, 5].flatMap((step) => [0, 1].flatMap((micro) => batches.windows(step, micro)));
    const expected = [0, 1, 2].flatMap((epoch) => {
      const order = windowOrder(3, epoch, 10);
      return Array.from({ length: 10 }, (_, index) => order(index));
    });
    expect(seen).toEqual(expected);
  });

  test('accumulation cuts the same step into smaller batches', () => {
    const whole = trainingBatches({ ...shape, batchSize: 6, gradAccumulation: 1 });
    const parts = trainingBatches({ ...shape, batchSize: 2, gradAccumulation: 3 });
    for (const step of [1, 2, 7])
      expect([0, 1, 2].flatMap((micro) => parts.windows(step, micro))).toEqual(whole.windows(step, 0));
  });

  test('a batch holds the windows that it names', () => {
    const { batch, windows } = trainingBatches({ ...shape, batchSize: 2, gradAccumulation: 1 }).micro(4, 0);
    expect([...batch.tokens]).toEqual(windows.flatMap((window) => [0, 1, 2, 3].map((t) => window * 4 + t)));
  });

  test('too few tokens', () => {
    expect(() =>
      trainingBatches({ ...shape, time: 41, batchSize: 1, gradAccumulation: 1 }),
    ).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The split "train" holds 41 tokens; one window of contextLength 41 needs 42.]`,
    );
  });
});

test('evaluation windows are all, or spread evenly', () => {
  expect(evaluationWindows(4)).toEqual([0, 1, 2, 3]);
  expect(evaluationWindows(4, 9)).toEqual([0, 1, 2, 3]);
  expect(evaluationWindows(10, 4)).toEqual([0, 2, 5, 7]);
  expect(evaluationWindows(0, 4)).toEqual([]);
});

test('bytes of targets count the first view only, and no ignored labels', () => {
  const labels = Int32Array.of(0, 1, 2, 1, -1, 0, 1, -1);
  const batch = { batch: 1, time: 4, lookahead: 2, tokens: new Int32Array(4), labels };
  expect(bytesOfTargets(batch, { byteLengths: Uint8Array.of(1, 5, 0) })).toBe(1 + 0 + 5);
});
