import { at, builtin, type Model, type Plugin, Registry, tf } from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { beforeAll, expect, test } from 'vitest';

import parity from '../examples/xlstm-parity/parity.ts';
import recall from '../examples/xlstm-recall/recall.ts';

beforeAll(() => useBackend('cpu'));

const registryOf = (plugin: Plugin) => new Registry([builtin, plugin]);
const reader = (plugin: Plugin, options: { name: string; [option: string]: unknown }) =>
  registryOf(plugin).create('source', options, {}).open('.').split('train');
const signal = new AbortController().signal;

const rows = (tokens: tf.Tensor) => tokens.arraySync() as number[][];

/** A model whose logits are a function of the tokens; it has neither parameters nor a way to decode. */
function oracle(vocabSize: number, answer: (tokens: readonly number[]) => readonly number[]): Model {
  return {
    dModel: vocabSize,
    vocabSize,
    init: () => ({}),
    hidden: (_params, { tokens }) =>
      tf.cast(
        tf.oneHot(
          tf.tensor2d(
            rows(tokens).map((row) => [...answer(row)]),
            undefined,
            'int32',
          ),
          vocabSize,
        ),
        'float32',
      ),
    logits: (_params, hidden) => hidden,
    initialState: () => ({}),
    step: () => expect.unreachable(),
  };
}

const measure = (plugin: Plugin, model: Model, task: { name: string; [option: string]: unknown }) => {
  const registry = registryOf(plugin);
  const tokenizer = registry.create('tokenizer', { name: task.name }, {});
  return registry.create('task', task, {}).run({ model, params: {}, tokenizer, signal });
};

test('parity: sequences of all lengths end with their parity, two in a window', () => {
  const tokens = reader(parity, { name: 'parity', minLength: 3, maxLength: 10 });
  const lengths = new Map<number, number>();
  for (let window = 0; window < 500; window++) {
    const sequences = [...tokens.read(window * 15, 15)].join('').split('0');
    expect(sequences).toHaveLength(3); // the last is empty
    for (const sequence of sequences.slice(0, 2)) {
      expect(sequence).toMatch(/^[12]+[34]$/);
      const ones = sequence.split('2').length - 1;
      expect(sequence.at(-1)).toBe(ones % 2 === 0 ? '3' : '4');
      lengths.set(sequence.length, (lengths.get(sequence.length) ?? 0) + 1);
    }
  }
  expect([...lengths.keys()].toSorted((a, b) => a - b)).toEqual([3, 4, 5, 6, 7, 8, 9, 10]);
  expect(Math.min(...lengths.values())).toBeGreaterThan(80); // 125 expected, a deviation of 10
  expect(tokens.read(14, 3)).toEqual(Uint16Array.from([0, ...tokens.read(15, 2)]));
  expect(tokens.read(tokens.tokens - 1, 2)[1]).toBe(tokens.read(0, 1)[0]);
});

const parities = (bits: readonly number[]): number[] => {
  let odd = 0;
  return bits.map((bit) => 3 + (odd ^= bit - 1));
};

test('parity: the task tells right from wrong, at every length', async () => {
  const task = { name: 'parity', minLength: 3, maxLength: 12, bins: 2, sequences: 40 };
  const right = await measure(parity, oracle(5, parities), task);
  expect(right).toEqual({ scaledAccuracy: 1, 'scaledAccuracy/3-7': 1, 'scaledAccuracy/8-12': 1 });
  const wrong = await measure(
    parity,
    oracle(5, (bits) => parities(bits).map((id) => 7 - id)),
    task,
  );
  expect(wrong['scaledAccuracy']).toBe(-1);
  // Right on up to 4 bits, which make 5 tokens with the answer; then always even.
  const short = oracle(5, (bits) => parities(bits).map((id, index) => (index < 4 ? id : 3)));
  const some = await measure(parity, short, { ...task, bins: 10 });
  expect([3, 4, 5].map((length) => some[`scaledAccuracy/${length}-${length}`])).toEqual([1, 1, 1]);
  expect(some['scaledAccuracy/6-6']).toBeLessThan(0.8);
});

const SETTING = { name: 'recall', contextLength: 32, pairs: 4 };

test('recall: every key is asked for once, and its value follows', () => {
  const tokens = reader(recall, SETTING);
  for (let window = 0; window < 200; window++) {
    const ids = [...tokens.read(window * 32, 32)];
    const pairs = new Map([0, 2, 4, 6].map((index) => [ids[index]!, ids[index + 1]!]));
    expect(pairs.size).toBe(4);
    expect([...pairs].every(([key, value]) => key > 0 && key < 128 && value >= 128 && value < 256)).toBe(true);
    const asked = ids.flatMap((id, index) => (index >= 8 && id >= 128 ? [[ids[index - 1]!, id] as const] : []));
    expect(new Map(asked)).toEqual(pairs);
    expect(asked).toHaveLength(4);
  }
});

test('recall: the task counts the queries that are answered', async () => {
  const recalled = (ids: readonly number[]): number[] => {
    const pairs = new Map([0, 2, 4, 6].map((index) => [ids[index]!, ids[index + 1]!]));
    return ids.map((id) => pairs.get(id) ?? 0);
  };
  const task = { ...SETTING, examples: 20 };
  expect(await measure(recall, oracle(256, recalled), task)).toEqual({ accuracy: 1 });
  const first = oracle(256, (ids) => recalled(ids).map((id) => (id === ids[1] ? id : 0)));
  expect(await measure(recall, first, task)).toEqual({ accuracy: 0.25 });
});

test('the loss is of the answers alone', () => {
  const objective = registryOf(parity).create(
    'objective',
    { name: 'answers', from: 3, after: 2 },
    { vocabSize: 5, contextLength: 4 },
  );
  const labels = Int32Array.from([3, 2, 4, 0, 1, 4, 1, 3]); // the first and the sixth stand too early
  expect(objective.targets({ batch: 2, time: 4, lookahead: 1, tokens: labels, labels })).toEqual({ answer: 2 });
  const table = tf.tensor2d([
    [0, 0, 0, 0, 0],
    [0, 0, 0, 0, 3],
  ]);
  const model: Model = {
    ...oracle(5, () => []),
    hidden: (params, { tokens }) => tf.gather(at(params, 'table'), tokens),
  };
  const batch = {
    tokens: tf.tensor2d(
      [
        [0, 0, 1, 0],
        [0, 0, 0, 0],
      ],
      undefined,
      'int32',
    ),
    labels: tf.tensor3d(labels, [2, 4, 1], 'int32'),
  };
  const { terms } = objective.loss({
    model,
    params: { table },
    batch,
    context: { training: true, dropout: (x) => x },
    progress: { step: 1, totalSteps: 1, tokensPerStep: 8 },
  });
  const expected = Math.log(4 + Math.exp(3)) - 3 + Math.log(5);
  expect(terms['answer']!.sum.dataSync()[0]).toBeCloseTo(expected, 5);
});
