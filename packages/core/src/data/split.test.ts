import { createHash } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { bytesTokenizer } from './bytes-tokenizer.ts';
import { Splitter } from './split.ts';

const tokenizer = { name: 'bytes', instance: bytesTokenizer.build({}, { create: () => expect.unreachable() }) };

describe('splits', () => {
  const fractionOf = (text: string) => createHash('sha256').update(text).digest().readUIntBE(0, 6) / 2 ** 48;
  const texts = Array.from({ length: 200 }, (_, index) => `text ${index}`);
  const split = (chosen: readonly string[], valFraction: number) => {
    const splits: Record<string, string[]> = { train: [], val: [] };
    const splitter = new Splitter(valFraction, tokenizer, {
      add(name, { ids, bytes }) {
        expect(bytes).toBe(ids.length);
        splits[name]?.push(Buffer.from(tokenizer.instance.decode(ids)).toString());
      },
    });
    for (const text of chosen) splitter.add({ text: Buffer.from(text), source: text });
    splitter.finish();
    return splits as { train: string[]; val: string[] };
  };

  test('go by the hash of the text', () => {
    const { train, val } = split(texts, 0.1);
    expect(val).toEqual(texts.filter((text) => fractionOf(text) < 0.1));
    expect(train.toSorted()).toEqual(texts.filter((text) => fractionOf(text) >= 0.1).toSorted());
  });

  test('a document stays where it is when others come', () => {
    const { val } = split(texts.slice(0, 100), 0.2);
    const more = split(texts, 0.2);
    expect(more.val.filter((text) => texts.indexOf(text) < 100)).toEqual(val);
  });

  test('if no hash chooses any, the smallest is held out', () => {
    const high = texts.filter((text) => fractionOf(text) > 0.01).slice(0, 20);
    const smallest = high.toSorted((a, b) => fractionOf(a) - fractionOf(b))[0]!;
    for (const order of [high, high.toReversed()]) {
      const { train, val } = split(order, 0.01);
      expect(val).toEqual([smallest]);
      expect(train.toSorted()).toEqual(high.filter((text) => text !== smallest).toSorted());
    }
  });

  test('two equal documents', () => {
    const text = texts.find((candidate) => fractionOf(candidate) > 0.01)!;
    expect(split([text, text], 0.01)).toEqual({ train: [text], val: [text] });
  });

  test('the end of an only document is held out', () => {
    expect(split(['0123456789'], 0.25)).toEqual({ train: ['01234567'], val: ['89'] });
    expect(split(['01'], 0.01)).toEqual({ train: ['0'], val: ['1'] });
    expect(split(['0123456789'], 0.5)).toEqual({ train: ['01234'], val: ['56789'] });
  });

  test('0 holds nothing out', () => {
    expect(split(texts, 0)).toEqual({ train: texts, val: [] });
    expect(split(['a'], 0)).toEqual({ train: ['a'], val: [] });
  });

  test('something must be left to train on', () => {
    expect(() => split(['a'], 0.1)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: No text is left to train on: the only document is too short to hold out a part of it.]`,
    );
    const low = texts.filter((text) => fractionOf(text) < 0.5).slice(0, 3);
    expect(() => split(low, 0.5)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: No text is left to train on: all 3 documents fall into the held-out fraction of 0.5.]`,
    );
    expect(() => split([], 0)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The input holds no text: every document is empty.]`,
    );
  });
});
