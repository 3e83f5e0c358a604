import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { Registry } from '../plugin/registry.ts';
import { keyedRng, mapParams, tf } from '../tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';
import { generate, generateText } from './generate.ts';
import { argmax, distribution, draw } from './sample.ts';

const logits = Float32Array.of(1, 3, 2, 3, -Infinity);

describe('the distribution of the next token', () => {
  const all = { temperature: 1, topK: 0, topP: 1 };
  const given = (options: object) => [...distribution(logits, { ...all, ...options })];
  const possible = (options: object) => given(options).flatMap((probability, id) => (probability > 0 ? [id] : []));

  test('is the softmax of the logits', () => {
    const weights = Array.from(logits, (logit) => Math.exp(logit));
    const total = weights.reduce((a, b) => a + b);
    for (const [id, probability] of given({}).entries()) expect(probability).toBeCloseTo(weights[id]! / total, 12);
  });
  test('at temperature 0 is the most likely token, the first of equals', () =>
    expect(given({ temperature: 0 })).toEqual([0, 1, 0, 0, 0]));
  test('is sharper at a lower temperature', () =>
    expect(given({ temperature: 0.5 })[1]).toBeGreaterThan(given({ temperature: 1 })[1]!));
  test('loses its tail to topK and topP, and still adds up to 1', () => {
    expect(possible({ topK: 3 })).toEqual([1, 2, 3]);
    expect(possible({ topK: 99 })).toEqual([0, 1, 2, 3]);
    expect(possible({ topP: 0.79 })).toEqual([1, 3]);
    expect(possible({ topP: 1e-9 })).toEqual([1]);
    // Of the three that topK leaves, two have 88 %.
    expect(possible({ topP: 0.84, topK: 3 })).toEqual([1, 3]);
    expect(possible({ topP: 0.84 })).toEqual([1, 2, 3]);
    expect(given({ topK: 2 })).toEqual([0, 0.5, 0, 0.5, 0]);
    expect(given({ topK: 1 })).toEqual([0, 1, 0, 0, 0]);
  });
  test('is what is drawn from', () => {
    const weights = Float64Array.of(0, 0.5, 0, 1.5, 0);
    expect([1e-9, 0.24, 0.26, 1 - 1e-17].map((uniform) => draw(weights, uniform))).toEqual([1, 1, 3, 3]);
  });
});

describe.each(TEST_BACKENDS)('generation on %s', (backend) => {
  const [contextLength, vocabSize] = [16, 300];
  const registry = new Registry([builtin]);
  const tokenizer = registry.create('tokenizer', { name: 'bytes' }, {});
  const never = new AbortController().signal;
  const greedy = { temperature: 0, topK: 0, topP: 1, seed: 1 };
  const build = (options: object = {}) => {
    const blocks = [{ block: 'attention', repeat: 2, heads: 2 }];
    const selected = { name: 'decoder', dModel: 16, initStd: 0.5, ...options, blocks };
    const model = registry.create('architecture', selected, { vocabSize, contextLength });
    return { model, params: model.init(keyedRng(2, 'init')), tokenizer };
  };
  beforeAll(() => useBackend(backend));

  const collect = async (source: ReturnType<typeof build>, prompt: number[], options: object) => {
    const ids: number[] = [];
    const run = { ...greedy, maxTokens: 12, ...options };
    for await (const id of generate(source, prompt, run, never)) ids.push(id);
    return ids;
  };

  /** The most likely next token by a full pass over what is visible. */
  const reference = ({ model, params }: ReturnType<typeof build>, tokens: number[]) =>
    tf.tidy(() => {
      const input = tf.tensor2d(tokens, [1, tokens.length], 'int32');
      const hidden = model.hidden(params, { tokens: input }, { training: false, dropout: (x) => x });
      const all = model.logits(params, hidden).dataSync();
      return argmax(all.slice((tokens.length - 1) * vocabSize, (tokens.length - 1) * vocabSize + tokenizer.vocabSize));
    });

  test('cached greedy decoding takes the tokens of full passes, also past the end of the context', async () => {
    const source = build();
    const prompt = [10, 20, 30];
    const ids = await collect(source, prompt, { maxTokens: 30 });
    expect(ids.length).toBeGreaterThan(contextLength);
    const tokens = [...prompt];
    let start = 0;
    for (const id of ids) {
      // When the context is full, decoding goes on from its last half.
      if (tokens.length - start > contextLength) start = tokens.length - contextLength / 2;
      expect(reference(source, tokens.slice(start))).toBe(id);
      tokens.push(id);
    }
  });

  test('the seed decides the text; padding rows are never drawn', async () => {
    const source = build();
    const options = { temperature: 1.5, maxTokens: 40 };
    const once = await collect(source, [65], { ...options, seed: 3 });
    expect(await collect(source, [65], { ...options, seed: 3 })).toEqual(once);
    expect(await collect(source, [65], { ...options, seed: 4 })).not.toEqual(once);
    expect(once.every((id) => id < tokenizer.vocabSize)).toBe(true);
  });

  test('an empty prompt starts a document; end of text ends one; a prompt may be longer than the context', async () => {
    const source = build({ tieEmbeddings: false });
    expect((await collect(source, [], {}))[0]).toBe(reference(source, [tokenizer.endOfText]));
    const long = Array.from({ length: 50 }, (_, index) => index);
    expect((await collect(source, long, { maxTokens: 1 }))[0]).toBe(reference(source, long.slice(-contextLength / 2)));
    // A constant hidden state and a head that answers it with end of text.
    const end = tf.cast(tf.oneHot(tf.tensor1d([tokenizer.endOfText], 'int32'), vocabSize), 'float32');
    const always = mapParams(source.params, (value, path) => {
      if (path === 'norm.weight') return tf.zerosLike(value);
      if (path === 'norm.bias') return tf.onesLike(value);
      return path === 'head.weight' ? tf.tile(end, [16, 1]) : value;
    });
    expect(await collect({ ...source, params: always }, [1, 2], {})).toEqual([]);
  });

  test('leaves no tensors behind, also when it is abandoned half-way', async () => {
    const source = build();
    const before = tf.memory().numTensors;
    await collect(source, [1, 2, 3], { maxTokens: 25 });
    for await (const _ of generate(source, [1], { ...greedy, maxTokens: 5 }, never)) break;
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a signal stops it', async () => {
    const controller = new AbortController();
    const run = async () => {
      for await (const _ of generate(build(), [1], { ...greedy, maxTokens: 5 }, controller.signal))
        controller.abort('SIGINT');
    };
    await expect(run()).rejects.toThrowErrorMatchingInlineSnapshot(`[LlmxError: Generation was stopped by SIGINT.]`);
  });

  test('text comes in whole characters', async () => {
    const source = build();
    let text = '';
    for await (const piece of generateText(source, 'ab', { ...greedy, maxTokens: 20 }, never)) text += piece.text;
    const ids = await collect(source, [97, 98], { maxTokens: 20 });
    expect(text).toBe(new TextDecoder().decode(tokenizer.decode(ids)));
  });
});
