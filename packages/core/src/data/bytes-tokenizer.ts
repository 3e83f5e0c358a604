import { createHash } from 'node:crypto';

import { z } from 'zod';

import { defineTokenizer } from '../plugin/define.ts';
import type { Tokenizer } from '../plugin/types.ts';

const END_OF_TEXT = 256;
const DEFINITION = 'llmx bytes 1: id 0..255 is the byte of that value, id 256 is the end of text';

const tokenizer: Tokenizer = {
  vocabSize: END_OF_TEXT + 1,
  endOfText: END_OF_TEXT,
  hash: createHash('sha256').update(DEFINITION).digest('hex'),
  byteLengths: new Uint8Array(END_OF_TEXT + 1).fill(1, 0, END_OF_TEXT),
  encode: (utf8) => new Uint16Array(utf8),
  decode(ids) {
    const bytes = new Uint8Array(ids.length);
    let length = 0;
    for (let index = 0; index < ids.length; index++) {
      const id = ids[index]!;
      if (id < END_OF_TEXT) bytes[length++] = id;
    }
    return bytes.slice(0, length);
  },
};

/** Every byte of UTF-8 is an id of its own: 257 ids, nothing to train, no text it cannot write. */
export const bytesTokenizer = defineTokenizer({
  name: 'bytes',
  summary: 'One id per UTF-8 byte, and 256 for the end of text.',
  paper: 'https://arxiv.org/abs/2105.13626',
  config: z.strictObject({}),
  build: () => tokenizer,
});
