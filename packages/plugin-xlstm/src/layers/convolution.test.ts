import { keyedRng, type Params, tf } from '@llmx/core';
import { expectClose, expectGradients, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { afterEach, beforeAll, beforeEach, describe, test } from 'vitest';

import { convolution, convolutionStep } from './convolution.ts';

const [BATCH, TIME, CHANNELS, TAPS] = [2, 9, 3, 4];
const rng = keyedRng(5, 'convolution');
const named = (weight: tf.Tensor, bias: tf.Tensor): Params => ({ 'c.weight': weight, 'c.bias': bias });
const weight = () => rng.normal('weight', [TAPS, CHANNELS], 1);
const bias = () => rng.normal('bias', [CHANNELS], 1);
const input = () => rng.normal('x', [BATCH, TIME, CHANNELS], 1);

const segments = (): tf.Tensor =>
  tf.tensor2d(
    [
      [0, 0, 0, 0, 0, 1, 1, 2, 3],
      [7, 7, 7, 7, 7, 7, 7, 7, 2],
    ],
    [BATCH, TIME],
    'int32',
  );

describe.each(TEST_BACKENDS)('convolution on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  test('gradients within documents agree with differences', () => {
    expectGradients(([x, w, b]) => convolution(named(w!, b!), 'c', x!, segments()), [input(), weight(), bias()]);
  });

  test('a document gives what it gives by itself', () => {
    const params = named(weight(), bias());
    const y = convolution(params, 'c', input(), segments());
    for (const [row, start, length] of [
      [0, 0, 5],
      [0, 5, 2],
      [0, 7, 1],
      [1, 8, 1],
    ] as const) {
      const part = (x: tf.Tensor) => tf.slice(x, [row, start, 0], [1, length, -1]);
      expectClose(part(y), convolution(params, 'c', part(input())), 1e-5, `Row ${row} from ${start}`);
    }
  });

  test('windows shorter than the taps, and one document, change nothing', () => {
    const params = named(weight(), bias());
    const short = tf.slice(input(), [0, 0, 0], [-1, 2, -1]);
    const one = tf.zeros([BATCH, 2], 'int32');
    expectClose(convolution(params, 'c', short, one), convolution(params, 'c', short), 1e-6, 'Two positions');
  });

  test('new positions see the last ones', () => {
    const params = named(weight(), bias());
    const y = convolution(params, 'c', input());
    let past: tf.Tensor = tf.zeros([BATCH, TAPS - 1, CHANNELS]);
    let start = 0;
    for (const length of [1, 2, 6]) {
      const step = convolutionStep(params, 'c', tf.slice(input(), [0, start, 0], [-1, length, -1]), past);
      expectClose(step.y, tf.slice(y, [0, start, 0], [-1, length, -1]), 1e-5, `From ${start}`);
      past = step.past;
      start += length;
    }
  });
});
