// Multi-query associative recall as a plugin: pairs of a key and a value, then the keys again in random places.
import { defineSource, defineTask, definePlugin, EVALUATION, randomKey, tf, uniformValues, z } from '@llmx/core';

import { answerPlaces, answers, computedSource, rowsAt, symbolTokenizer } from '../support/answers.ts';

/** Ids; keys are 1 to VOCABULARY / 2 - 1, values the upper half. */
const VOCABULARY = 256;
const VALUES = VOCABULARY / 2;
const WINDOWS = 1_000_000;
/** The chance of a gap of g pairs is in proportion to g^(POWER - 1): most queries come early. */
const POWER = 0.01;

const size = z.int().positive();
const options = {
  contextLength: size.default(64).describe('Tokens of an example.'),
  pairs: size.default(4).describe('Pairs of a key and a value; each key is asked for once.'),
  seed: z.int().min(0).default(1),
};
interface Setting {
  readonly contextLength: number;
  readonly pairs: number;
}

/** Uniform values that one example takes. */
const randomsOf = ({ contextLength, pairs }: Setting): number =>
  contextLength + 2 * pairs + places(contextLength, pairs);
/** Places for a query and its answer behind the pairs. */
const places = (contextLength: number, pairs: number): number => contextLength / 2 - pairs;

/** Pairs, then each key in a place of its own with its value after it, among random ids of keys. */
function example(random: Float64Array, { contextLength, pairs }: Setting): Uint16Array {
  const tokens = Uint16Array.from(random.subarray(0, contextLength), keyOf);
  const [keys, values, gaps] = [0, pairs, 2 * pairs].map((from) => random.subarray(contextLength + from));
  const chosen = distinct(keys!.subarray(0, pairs), keyOf);
  const slots = weighted(gaps!, pairs);
  for (const [pair, key] of chosen.entries()) {
    const both = [key, VALUES + Math.floor(values![pair]! * VALUES)];
    tokens.set(both, 2 * pair);
    tokens.set(both, 2 * (pairs + slots[pair]!));
  }
  return tokens;
}

const keyOf = (value: number): number => 1 + Math.floor(value * (VALUES - 1));

/** Ids of all values; the next free one where two are the same. */
function distinct(random: Float64Array, idOf: (value: number) => number): number[] {
  const ids = new Set<number>();
  for (const value of random) {
    let id = idOf(value);
    while (ids.has(id)) id = (id % (VALUES - 1)) + 1;
    ids.add(id);
  }
  return [...ids];
}

/** `count` distinct indices, drawn one after another with weights (index + 1)^(POWER - 1): the first arrivals of a race. */
function weighted(random: Float64Array, count: number): number[] {
  const arrivals = Array.from(random, (value, index) => -Math.log(value) * (index + 1) ** (1 - POWER));
  return [...arrivals.keys()].toSorted((a, b) => arrivals[a]! - arrivals[b]!).slice(0, count);
}

function examples(setting: Setting & { readonly seed: number }, split: string): (index: number) => Uint16Array {
  const [key, count] = [randomKey(setting.seed, 'recall', split), randomsOf(setting)];
  return (index) => example(uniformValues(key, count, index * count), setting);
}

const source = defineSource({
  name: 'recall',
  summary: 'Multi-query associative recall, one example in a window.',
  paper: 'https://arxiv.org/abs/2312.04927',
  config: z.strictObject(options),
  build: (setting) =>
    computedSource({
      tokenizer: 'recall',
      size: VOCABULARY,
      count: WINDOWS,
      length: setting.contextLength,
      options: setting,
      window: examples(setting, 'train'),
    }),
});

/** Examples that are evaluated at a time. */
const BATCH = 64;

const task = defineTask({
  name: 'recall',
  summary: 'Share of queries that are answered with their value.',
  paper: 'https://arxiv.org/abs/2312.04927',
  config: z.strictObject({ ...options, examples: size.default(1024) }),
  build: (setting) => ({
    async run({ model, params, signal }) {
      const { contextLength: time, pairs } = setting;
      const read = examples(setting, 'task');
      let right = 0;
      for (let first = 0; first < setting.examples && !signal.aborted; first += BATCH) {
        const count = Math.min(BATCH, setting.examples - first);
        const ids = Int32Array.from(Array.from({ length: count }, (_, row) => [...read(first + row)]).flat());
        const labels = Int32Array.from(ids, (_, index) => (index % time === time - 1 ? -1 : ids[index + 1]!));
        const queries = answerPlaces(labels, time, { from: VALUES, after: 2 * pairs });
        const guesses = tf.tidy(() => {
          const hidden = model.hidden(params, { tokens: tf.tensor2d(ids, [count, time], 'int32') }, EVALUATION);
          return tf.argMax(model.logits(params, rowsAt(hidden, queries)), -1);
        });
        const answered = await guesses.data();
        right += queries.filter((place, index) => answered[index] === labels[place]).length;
        guesses.dispose();
      }
      return { accuracy: right / (setting.examples * pairs) };
    },
  }),
});

export default definePlugin({
  name: 'llmx-example-recall',
  version: '0.1.0',
  llmx: '^0.1.0',
  components: [symbolTokenizer('recall', VOCABULARY), source, answers, task],
});
