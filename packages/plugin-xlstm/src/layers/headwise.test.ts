import { keyedRng, tf } from '@llmx/core';
import { expectClose, expectGradients, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { afterEach, beforeAll, beforeEach, describe, test } from 'vitest';

import { headwise } from './headwise.ts';

const rng = keyedRng(6, 'headwise');
const [BATCH, TIME] = [2, 3];

/** One product for each block, written out. */
function reference(x: tf.Tensor, weight: tf.Tensor): tf.Tensor {
  const [blocks, , outputs] = weight.shape as [number, number, number];
  const parts = tf.split(tf.reshape(x, [BATCH * TIME, -1]), blocks, 1);
  const products = parts.map((part, block) => tf.matMul(part, tf.squeeze(tf.slice(weight, block, 1), [0])));
  return tf.reshape(tf.concat(products, 1), [BATCH, TIME, blocks * outputs]);
}

describe.each(TEST_BACKENDS)('headwise on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  // Alone, in one group, in several groups, and in groups that do not come out even.
  test.each([
    [1, 3, 5],
    [8, 4, 4],
    [40, 4, 4],
    [17, 4, 4],
    [3, 70, 2],
    [6, 5, 16],
  ])('%i blocks of %i x %i are products of their own, with exact gradients', (blocks, inputs, outputs) => {
    const x = rng.normal('x', [BATCH, TIME, blocks * inputs], 1);
    const weight = rng.normal('weight', [blocks, inputs, outputs], 1);
    expectClose(headwise(x, weight), reference(x, weight), 2e-5, 'Product');
    expectGradients(([a, b]) => headwise(a!, b!), [x, weight]);
  });
});
