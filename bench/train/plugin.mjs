// What the configurations of bench/train.mjs need beyond core: a tokenizer with as many ids as GPT-2's, and the peak memory
// of the steps among the metrics.
import { createHash } from 'node:crypto';

import { definePlugin, defineTokenizer, z } from '@llmx/core';

const VOCABULARY = 50_257;
const END_OF_TEXT = VOCABULARY - 1;
const BYTES = 256;
/** Bytes below this one are paired; all of ASCII is. */
const PAIRED = 223;
const IDS = BYTES + PAIRED * PAIRED; // 49,985: the rest, up to the end of text, stands for nothing
const DEFINITION =
  'bench byte-pairs 1: id 0..255 is a byte, id 256 + 223 a + b the bytes a and b below 223, 50256 the end';

function encode(utf8) {
  const ids = new Uint16Array(utf8.length);
  let count = 0;
  for (let index = 0; index < utf8.length; index++) {
    const [first, second] = [utf8[index], utf8[index + 1]];
    const isPair = first < PAIRED && second < PAIRED; // false where there is no second
    ids[count++] = isPair ? BYTES + first * PAIRED + second : first;
    if (isPair) index += 1;
  }
  return ids.slice(0, count);
}

/** The bytes of one id. */
function bytesOf(id) {
  if (id < BYTES) return [id];
  if (id >= IDS) return [];
  return [Math.floor((id - BYTES) / PAIRED), (id - BYTES) % PAIRED];
}

/** Not made for learning: two bytes an id, so that text uses a vocabulary of GPT-2's size without a file of merges. */
export const bytePairs = {
  vocabSize: VOCABULARY,
  endOfText: END_OF_TEXT,
  hash: createHash('sha256').update(DEFINITION).digest('hex'),
  byteLengths: Uint8Array.from({ length: VOCABULARY }, (_, id) => bytesOf(id).length),
  encode,
  decode: (ids) => Uint8Array.from(Array.from(ids).flatMap(bytesOf)),
};

const tokenizer = defineTokenizer({
  name: 'byte-pairs',
  summary: 'Two bytes an id, in a vocabulary of 50,257.',
  config: z.strictObject({}),
  build: () => bytePairs,
});

/** @public named by a.yaml and b.yaml */
export default definePlugin({
  name: 'llmx-bench',
  version: '0.0.0',
  llmx: '>=0.1.0',
  components: [tokenizer],
  setup: () => ({
    hooks: {
      /** The peak up to this step: without what the checkpoint after the last one takes. */
      metrics: (metrics) => ({ ...metrics, peakMiB: process.resourceUsage().maxRSS / 1024 }),
    },
  }),
});
