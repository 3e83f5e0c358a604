import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { assembleBatch } from '../data/index.ts';
import { crossEntropy, labelsOfView } from '../objective/next-token.ts';
import { Registry } from '../plugin/registry.ts';
import type { TokenReader } from '../plugin/types.ts';
import { keyedRng, mapParams, tf } from '../tensor/index.ts';
import { expectClose } from '../testing/close.ts';
import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';
import { evaluate, type EvaluationData } from './evaluate.ts';
import { EVALUATION, upload } from './forward-context.ts';

const registry = new Registry([builtin]);
const tokenizer = registry.create('tokenizer', { name: 'bytes' }, {});
const END = tokenizer.endOfText;
const TIME = 12;

/** A reader of ids in memory. */
const readerOf = (ids: readonly number[]): TokenReader => ({
  tokens: ids.length,
  read: (start, length) => Uint16Array.from(ids.slice(start, start + length)),
  close: () => undefined,
});
const bytesOf = (text: string) => [...tokenizer.encode(new TextEncoder().encode(text)), END];
const never = new AbortController().signal;

describe.each(TEST_BACKENDS)('evaluation on %s', (backend) => {
  beforeAll(() => useBackend(backend));

  const build = (options: object = {}) => {
    const blocks = [{ block: 'attention', repeat: 2, heads: 2, ...options }];
    const context = { vocabSize: 257, contextLength: TIME };
    const model = registry.create(
      'architecture',
      { name: 'decoder', dModel: 16, initStd: 0.3, ...options, blocks },
      context,
    );
    return { model, params: model.init(keyedRng(1, 'init')) };
  };
  const data = (ids: readonly number[], options: Partial<EvaluationData> = {}): EvaluationData => ({
    reader: readerOf(ids),
    tokenizer,
    split: 'val',
    packing: 'stream',
    contextLength: TIME,
    batchSize: 3,
    maxTokens: 0,
    ...options,
  });
  const texts = ['first document', 'a', 'the third one is longer than a window', 'x y z', ''].flatMap(bytesOf);

  test('a model that knows nothing pays log2(257) bits per token, and end of text costs bits but counts no byte', async () => {
    const { model, params } = build();
    const ignorant = mapParams(params, (value) => tf.zerosLike(value));
    const result = await evaluate({ model, params: ignorant }, data(texts), never);
    const windows = Math.floor((texts.length - 1) / TIME);
    const targets = texts.slice(1, windows * TIME + 1);
    expect(result.tokens).toBe(windows * TIME);
    expect(result.bytes).toBe(targets.filter((id) => id !== END).length);
    expect(result.loss).toBeCloseTo(Math.log(257), 5);
    expect(result.perplexity).toBeCloseTo(257, 2);
    expect(result.bitsPerByte).toBeCloseTo((Math.log2(257) * result.tokens) / result.bytes, 5);
  });

  test('the batch size does not matter, and leaves no tensors behind', async () => {
    const source = build();
    const before = tf.memory().numTensors;
    const one = await evaluate(source, data(texts, { batchSize: 1 }), never);
    const all = await evaluate(source, data(texts, { batchSize: 100 }), never);
    expect(tf.memory().numTensors).toBe(before);
    expect(all.tokens).toBe(one.tokens);
    expect(all.loss).toBeCloseTo(one.loss, 5);
  });

  test.each([{}, { norm: 'rmsnorm', positions: 'rotary' }])(
    'with documents packed, each part of a document has the loss it has alone (%o)',
    (options) => {
      const { model, params } = build(options);
      const shape = { time: TIME, lookahead: 1, packing: 'documents', endOfText: END } as const;
      const windows = Array.from({ length: Math.floor((texts.length - 1) / TIME) }, (_, index) => index);
      const packed = assembleBatch({ ...shape, reader: readerOf(texts), windows });
      const losses = (batch: Parameters<typeof upload>[0]) => {
        const tensors = upload(batch);
        const hidden = model.hidden(params, tensors, EVALUATION);
        return [...crossEntropy(model, params, hidden, labelsOfView(tensors.labels, 0)).dataSync()];
      };
      const together = losses(packed);
      let compared = 0;
      for (const window of windows) {
        const ids = texts.slice(window * TIME, window * TIME + TIME + 1);
        // Parts of documents within the window, and where each begins.
        for (let begin = 0; begin < TIME;) {
          const end = ids.indexOf(END, begin);
          const length = (end < 0 ? TIME : Math.min(end, TIME - 1) + 1) - begin;
          const part = ids.slice(begin, begin + length);
          // Alone, the text ends where the document does: after end of text nothing is predicted.
          const labels = Int32Array.from(part, (id, index) => (id === END ? -1 : ids[begin + index + 1]!));
          const alone = losses({ batch: 1, time: length, lookahead: 1, tokens: Int32Array.from(part), labels });
          expectClose(
            together.slice(window * TIME + begin, window * TIME + begin + length),
            alone,
            2e-5,
            `window ${window} at ${begin}`,
          );
          begin += length;
          compared += 1;
        }
      }
      expect(compared).toBeGreaterThan(windows.length + 2);
    },
  );

  test('a limit takes windows spread over the split', async () => {
    const source = build();
    const limited = await evaluate(source, data(texts, { maxTokens: 2 * TIME }), never);
    expect(limited.tokens).toBe(2 * TIME);
    expect(limited.loss).not.toBe((await evaluate(source, data(texts), never)).loss);
  });

  test('windows beyond learned positions, splits without a window and signals are refused', async () => {
    const source = build();
    await expect(
      evaluate(source, data(texts, { contextLength: 2 * TIME }), never),
    ).rejects.toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The model has learned positions for 12 tokens, got a window of 24.]`,
    );
    await expect(evaluate(source, data(texts.slice(0, TIME)), never)).rejects.toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The split "val" holds 12 tokens; one window of contextLength 12 needs 13.]`,
    );
    await expect(
      evaluate(source, data(texts), AbortSignal.abort('SIGTERM')),
    ).rejects.toThrowErrorMatchingInlineSnapshot(`[LlmxError: Evaluation was stopped by SIGTERM.]`);
    const rotary = build({ positions: 'rotary' });
    expect((await evaluate(rotary, data(texts, { contextLength: 2 * TIME }), never)).tokens % (2 * TIME)).toBe(0);
  });
});
