// Parity as a plugin: sequences of bits that end with the answer, whether there are odd many ones among them.
import {
  defineSource,
  defineTask,
  definePlugin,
  EVALUATION,
  type Metrics,
  randomKey,
  tf,
  uniformValues,
  z,
} from '@llmx/core';

import { answers, computedSource, symbolTokenizer } from '../support/answers.ts';

// Ids: 0 ends a sequence, 1 and 2 are the bits 0 and 1, 3 and 4 the answers even and odd.
const [END, BIT, ANSWER, SIZE] = [0, 1, 3, 5];
const WINDOWS = 1_000_000;

const atLeastTwo = z.int().min(2);
const lengths = {
  minLength: atLeastTwo.describe('Tokens of the shortest sequence: its bits and the answer.'),
  maxLength: atLeastTwo.describe('Tokens of the longest sequence.'),
};

/** Two sequences a window, whose lengths add up, so that every window is full. */
const source = defineSource({
  name: 'parity',
  summary: 'Random bits and their parity, in windows of minLength + maxLength + 2 tokens.',
  config: z.strictObject({ ...lengths, seed: z.int().min(0).default(1) }),
  build(options) {
    const { minLength, maxLength, seed } = options;
    const key = randomKey(seed, 'parity', 'train');
    const both = minLength + maxLength;
    const window = (index: number): Uint16Array => {
      const [first = 0, ...random] = uniformValues(key, both + 1, index * (both + 1));
      const length = minLength + Math.floor(first * (maxLength - minLength + 1));
      const bits = random.map((value) => (value < 0.5 ? 0 : 1));
      return Uint16Array.from([...sequence(bits.slice(0, length - 1)), ...sequence(bits.slice(length, both - 1))]);
    };
    return computedSource({ tokenizer: 'parity', size: SIZE, count: WINDOWS, length: both + 2, options, window });
  },
});

const sequence = (bits: readonly number[]): number[] => [
  ...bits.map((bit) => BIT + bit),
  ANSWER + bits.reduce((sum, bit) => sum ^ bit, 0),
  END,
];

/** Sequences that are evaluated at a time. */
const BATCH = 32;

/**
 * Accuracy a of the answers on sequences of minLength to maxLength tokens, all lengths alike, scaled so that guessing
 * gives 0: 2 a - 1. Models see no future, so that one long sequence is read as one of every length.
 */
const task = defineTask({
  name: 'parity',
  summary: 'Scaled accuracy of the parity of random bits: 1 is perfect, 0 is guessing.',
  paper: 'https://arxiv.org/abs/2405.04517',
  config: z.strictObject({
    minLength: lengths.minLength.default(40),
    maxLength: lengths.maxLength.default(256),
    sequences: z.int().positive().default(256),
    bins: z.int().positive().default(7).describe('Ranges of lengths that get a number of their own.'),
    seed: z.int().min(0).default(1),
  }),
  build: ({ minLength, maxLength, sequences, bins, seed }) => ({
    async run({ model, params, signal }) {
      const time = maxLength - 1;
      const right = new Float64Array(time); // answers that are right, by the number of bits - 1
      for (let row = 0; row < sequences && !signal.aborted; row += BATCH) {
        const rows = Math.min(BATCH, sequences - row);
        const random = uniformValues(randomKey(seed, 'parity', 'task'), rows * time, row * time);
        const bits = Int32Array.from(random, (value) => (value < 0.5 ? 0 : 1));
        const guesses = tf.tidy(() => {
          const tokens = tf.tensor2d(
            bits.map((bit) => BIT + bit),
            [rows, time],
            'int32',
          );
          return tf.argMax(model.logits(params, model.hidden(params, { tokens }, EVALUATION)), -1);
        });
        tally(await guesses.data(), bits, right);
        guesses.dispose();
      }
      return scaled(
        right.map((count) => (2 * count) / sequences - 1),
        { minLength, maxLength, bins },
      );
    },
  }),
});

function tally(guesses: ArrayLike<number>, bits: Int32Array, right: Float64Array): void {
  const time = right.length;
  let odd = 0;
  for (let index = 0; index < bits.length; index++) {
    odd = (index % time === 0 ? 0 : odd) ^ bits[index]!;
    if (guesses[index] === ANSWER + odd) right[index % time]! += 1;
  }
}

/** Means over all lengths and over ranges of them, by the name `scaledAccuracy/<from>-<to>`. */
function scaled(
  byBits: Float64Array,
  { minLength, maxLength, bins }: { minLength: number; maxLength: number; bins: number },
): Metrics {
  const mean = (from: number, to: number): number =>
    byBits.slice(from - 2, to - 1).reduce((sum, value) => sum + value, 0) / (to - from + 1);
  const edge = (bin: number): number => minLength + Math.round((bin * (maxLength + 1 - minLength)) / bins);
  const parts = Array.from({ length: bins }, (_, bin) => [edge(bin), edge(bin + 1) - 1] as const);
  return {
    scaledAccuracy: mean(minLength, maxLength),
    ...Object.fromEntries(parts.map(([from, to]) => [`scaledAccuracy/${from}-${to}`, mean(from, to)])),
  };
}

export default definePlugin({
  name: 'llmx-example-parity',
  version: '0.1.0',
  llmx: '^0.1.0',
  components: [symbolTokenizer('parity', SIZE), source, answers, task],
});
