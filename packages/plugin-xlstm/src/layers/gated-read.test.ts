import { keyedRng, type Params, swiglu, tf } from '@llmx/core';
import { expectClose, expectGradients, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { afterEach, beforeAll, beforeEach, describe, test } from 'vitest';

import { gatedRead } from './gated-read.ts';
import { headNorm } from './norm.ts';

const rng = keyedRng(7, 'gated-read');
const [BATCH, TIME, HEADS] = [2, 5, 3];

describe.each(TEST_BACKENDS)('a gated read on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  test.each([4, 21])('is norm, skip and gate, with exact gradients, for heads of %i', (size) => {
    const width = HEADS * size;
    const rows = (name: string) => rng.normal(name, [BATCH, TIME, width], 2);
    const named = (weight: tf.Tensor, skip: tf.Tensor): Params => ({ 'headNorm.weight': weight, skip });
    const h = rng.normal('h', [BATCH, TIME, HEADS, size], 2);
    const inputs = [h, rows('mixed'), rows('gate'), rng.normal('weight', [width], 1), rng.normal('skip', [width], 1)];
    const [, mixed, gate, weight, skip] = inputs as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
    const params = named(weight, skip);
    const expected = swiglu(gate, tf.add(headNorm(params, 'headNorm', h), tf.mul(mixed, skip)));
    expectClose(gatedRead(params, h, mixed, gate), expected, 2e-5, 'Result');
    expectGradients(([a, b, c, d, e]) => gatedRead(named(d!, e!), a!, b!, c!), inputs);
  });
});
