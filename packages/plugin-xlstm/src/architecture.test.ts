import { builtin, differentiateParams, keyedRng, type Model, Registry, type Rng, tf } from '@llmx/core';
import { expectClose, largestMagnitude, useBackend } from '@llmx/core/testing';
import { beforeAll, expect, test } from 'vitest';

import plugin from './index.ts';

const registry = new Registry([builtin, plugin]);
beforeAll(() => useBackend('cpu'));

const build = (options: object, vocabSize = 257): Model =>
  registry.create('architecture', { name: 'xlstm', ...options }, { vocabSize, contextLength: 16 });

/** Gives zeros, for those who need shapes only. */
const zeros: Rng = {
  normal: (_path, shape) => tf.zeros([...shape]),
  uniform: (_path, shape) => tf.zeros([...shape]),
  scope: () => zeros,
};

/** Number of values of a fresh model's parameters. */
function sizes(model: Model): Record<string, number> {
  return tf.tidy(() => {
    const params = Object.entries(model.init(zeros));
    return Object.fromEntries(params.map(([path, value]) => [path, value.size]));
  });
}

const total = (model: Model): number => Object.values(sizes(model)).reduce((sum, size) => sum + size, 0);

/** Blocks that have a recurrent matrix. */
const slstmBlocks = (model: Model): number[] =>
  Object.keys(sizes(model)).flatMap(
    (path) => /^blocks\.(\d+)\.recurrent\.weight$/u.exec(path)?.slice(1).map(Number) ?? [],
  );

test('sizes have the number of parameters that they are named after', () => {
  expect(total(build({ size: '1M' })) / 1e6).toBeCloseTo(1, 0);
  expect(total(build({ size: '3M' })) / 1e6).toBeCloseTo(3.4, 0);
  expect(total(build({ size: '15M' })) / 1e6).toBeCloseTo(15, 0);
});

test('sLSTM blocks are where the ratio, or the list, has them', () => {
  expect(slstmBlocks(build({}))).toEqual([1]);
  expect(slstmBlocks(build({ depth: 4, ratio: [1, 1] }))).toEqual([1, 3]);
  expect(slstmBlocks(build({ ratio: [1, 0] }))).toEqual([]);
  expect(slstmBlocks(build({ slstmAt: [0, 7] }))).toEqual([0, 7]);
  // The paper's places at 7 to 1, with its depth alone.
  expect(slstmBlocks(build({ size: '125M', dModel: 32 }))).toEqual([3, 20]);
  expect(slstmBlocks(build({ size: '125M', dModel: 32, depth: 8 }))).toEqual([1]);
});

test('decoding has no last position', () => {
  expect(build({ depth: 2, ratio: [1, 1] }).maxPositions).toBe(Infinity);
});

test('documents in one window give the gradients that they give by themselves', () => {
  tf.tidy(() => {
    const model = build({ dModel: 32, depth: 2, heads: 2, ratio: [1, 1], chunk: 4 }, 11);
    const rng = keyedRng(2, 'test');
    const fresh = Object.entries(model.init(rng.scope('init')));
    const params = Object.fromEntries(fresh.map(([path, x]) => [path, tf.add(x, rng.normal(path, x.shape, 0.1))]));
    const row = (ids: number[]) => tf.tensor2d([ids], [1, ids.length], 'int32');
    const gradients = (tokens: tf.Tensor, segments?: tf.Tensor) =>
      differentiateParams(() => {
        const context = { training: false, dropout: (x: tf.Tensor) => x, ...(segments && { segments }) };
        const hidden = model.hidden(params, { tokens, ...(segments && { segments }) }, context);
        return { result: tf.sum(tf.square(model.logits(params, hidden))) };
      }, params).grads;
    const [first, second] = [
      [3, 1, 4, 1, 5],
      [9, 2],
    ];
    const packed = gradients(row([...first, ...second]), row([0, 0, 0, 0, 0, 1, 1]));
    const alone = [first, second].map((ids) => gradients(row(ids)));
    for (const [path, gradient] of Object.entries(packed)) {
      const sum = tf.addN(alone.map((grads) => grads[path]!));
      expectClose(gradient, sum, 2e-5 * largestMagnitude(sum) + 1e-6, path);
    }
  });
});
