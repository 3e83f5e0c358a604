// What the synthetic tasks share: ids without text, a dataset that is computed rather than read, and a loss on answers.
import { createHash } from 'node:crypto';

import {
  crossEntropy,
  defineObjective,
  defineTokenizer,
  embedding,
  LlmxError,
  labelsOfView,
  type Source,
  tf,
  type Tokenizer,
  z,
} from '@llmx/core';

const END = 0; // the id that ends a document
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** Ids 0 to size - 1, 0 ends a document; as text they are numbers with spaces between. */
function symbols(size: number): Tokenizer {
  return {
    vocabSize: size,
    endOfText: END,
    hash: sha256(`symbols ${size}`),
    byteLengths: new Uint8Array(size),
    encode: (utf8) => Uint16Array.from(new TextDecoder().decode(utf8).split(' ').filter(Boolean), Number),
    decode: (ids) => new TextEncoder().encode(Array.from(ids, (id) => ` ${id}`).join('')),
  };
}

/** The tokenizer component of a task with `size` ids. */
export const symbolTokenizer = (name: string, size: number) =>
  defineTokenizer({
    name,
    summary: `${size} ids without text.`,
    config: z.strictObject({}),
    build: () => symbols(size),
  });

export interface Windows {
  /** Name and number of ids of the tokenizer. */
  readonly tokenizer: string;
  readonly size: number;
  /** Windows in the dataset, and tokens in each. */
  readonly count: number;
  readonly length: number;
  /** Everything that decides the tokens, for the fingerprint. */
  readonly options: object;
  /** Tokens of window `index`; the same at every call. */
  window(index: number): Uint16Array;
}

/** A dataset of one split, `train`, whose windows are computed when they are read. Its folder need not exist. */
export function computedSource({ tokenizer: name, size, count, length, options, window }: Windows): Source {
  const tokens = count * length;
  const { vocabSize, endOfText, hash } = symbols(size);
  const read = (start: number, many: number): Uint16Array => {
    const first = Math.floor(start / length);
    const last = Math.floor((start + many - 1) / length);
    const joined = new Uint16Array((last - first + 1) * length);
    // The token after the last window is that of the first.
    for (let index = first; index <= last; index++) joined.set(window(index % count), (index - first) * length);
    return joined.subarray(start - first * length, start - first * length + many);
  };
  return {
    open: () => ({
      info: {
        fingerprint: sha256(JSON.stringify([name, count, length, options])),
        tokenizer: { name, hash },
        vocabSize,
        endOfText,
        splits: { train: { documents: count, tokens, bytes: 0 } },
      },
      split(split) {
        if (split === 'train') return { tokens, read, close: () => undefined };
        throw new LlmxError('LLMX_DATASET_MISSING', `The ${name} sequences have no split "${split}".`, {
          hint: `Evaluate on the task instead: llmx eval RUN --task ${name}.`,
        });
      },
    }),
  };
}

/** Which labels are answers: ids from `from` on, at positions of the window from `after` on. */
interface Answers {
  readonly from: number;
  readonly after: number;
}

/** Where the answers are among the labels of windows of `time` tokens, the labels of all windows in one row. */
export const answerPlaces = (labels: Int32Array, time: number, { from, after }: Answers): Int32Array =>
  Int32Array.from(labels.keys()).filter((index) => labels[index]! >= from && index % time >= after);

/** Rows of hidden [batch, time, dModel] at these places, float32 [1, places, dModel]. */
export function rowsAt(hidden: tf.Tensor, places: Int32Array): tf.Tensor {
  const rows = tf.reshape(hidden, [-1, hidden.shape[2]!]);
  return embedding(rows, tf.tensor2d(places, [1, places.length], 'int32'));
}

/** Next-token cross-entropy of the answers alone: everything else is random, and nothing can be learned from it. */
export const answers = defineObjective({
  name: 'answers',
  summary: 'Next-token cross-entropy of the tokens that are answers.',
  config: z.strictObject({
    from: z.int().min(1).describe('Answers are the ids from this one on ...'),
    after: z.int().min(0).default(0).describe('... behind so many positions of the window.'),
  }),
  build: (which) => ({
    lookahead: 1,
    targets: ({ labels, time }) => ({ answer: answerPlaces(labels, time, which).length }),
    loss({ model, params, batch, context }) {
      const hidden = model.hidden(params, batch, context);
      // Few positions have an answer: the others are left out before the unembedding, which would cost most.
      const labels = Int32Array.from(labelsOfView(batch.labels, 0).dataSync());
      const places = answerPlaces(labels, hidden.shape[1]!, which);
      const targets = tf.tensor2d(
        Int32Array.from(places, (place) => labels[place]!),
        [1, places.length],
        'int32',
      );
      const losses = crossEntropy(model, params, rowsAt(hidden, places), targets);
      return { terms: { answer: { sum: tf.sum(losses), weight: 1 } } };
    },
  }),
});
