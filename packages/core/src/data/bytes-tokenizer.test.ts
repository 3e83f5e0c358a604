import { expect, test } from 'vitest';

import { bytesTokenizer } from './bytes-tokenizer.ts';

const tokenizer = bytesTokenizer.build({}, { create: () => expect.unreachable() });

test('bytes are their own ids', () => {
  const ids = tokenizer.encode(Buffer.from('né\u0000'));
  expect(ids).toEqual(Uint16Array.of(0x6e, 0xc3, 0xa9, 0));
  expect(Buffer.from(tokenizer.decode([...ids, tokenizer.endOfText])).toString()).toBe('né\u0000');
});

test('encoding copies', () => {
  const text = Buffer.from('abc');
  const ids = tokenizer.encode(text);
  text[0] = 0;
  expect(ids[0]).toBe(0x61);
});

test('only the end of text has no bytes', () => {
  expect(tokenizer.vocabSize).toBe(257);
  expect(tokenizer.byteLengths).toHaveLength(257);
  expect([...tokenizer.byteLengths].indexOf(0)).toBe(tokenizer.endOfText);
});

test('the hash is part of every dataset and does not change', () => {
  expect(tokenizer.hash).toMatchInlineSnapshot(`"0f0a1def7e842e14ab78adb1b47c3d7dd9119fda7f0daef538d3f5b7d21c1ed7"`);
});
