import { differentiate, tf } from '@llmx/core';
import { expectClose, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { type Stage, stagedSum } from './staged-sum.ts';

describe.each(TEST_BACKENDS)('stagedSum on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => {
    tf.engine().startScope();
    return () => tf.engine().endScope();
  });

  /** Three losses: all depend on x and w, each on a v of its own. */
  const losses = (x: tf.Tensor, w: tf.Tensor, vs: readonly tf.Tensor[]): (() => tf.Tensor)[] =>
    vs.map((v, index) => () => tf.sum(tf.square(tf.mul(tf.mul(tf.tanh(x), w), tf.add(v, index)))));

  test('value and gradients are those of the plain sum, whatever it is part of', () => {
    const leaf = tf.tensor1d([0.3, -1.2, 0.7]);
    const w = tf.tensor1d([1.5, 0.4, -0.6]);
    const vs = [tf.tensor1d([1, 2, 3]), tf.tensor1d([-1, 0, 0.5]), tf.tensor1d([0.1, 0.2, -3])];
    const result = (sum: (x: tf.Tensor) => tf.Tensor) => {
      const f = () => {
        const x = tf.mul(leaf, 2);
        return { result: tf.add(tf.mul(sum(x), 0.25), tf.sum(w)) };
      };
      return differentiate(f, [leaf, w, ...vs]);
    };
    const plain = result((x) => tf.addN(losses(x, w, vs).map((loss) => loss())));
    const staged = result((x) => {
      const stages = losses(x, w, vs).map((loss, index): Stage<{ twice: tf.Tensor }> => ({
        inputs: [x, w, vs[index]!],
        run: () => {
          const value = loss();
          return { loss: value, kept: { twice: tf.mul(value, 2) } };
        },
      }));
      const { sum, kept } = stagedSum(stages);
      const twice = tf.addN(kept.map((one) => one.twice));
      expectClose(twice, [2 * sum.dataSync()[0]!], 1e-3, 'What was kept');
      return sum;
    });
    expectClose(staged.value.result, plain.value.result, 1e-4, 'The sum');
    staged.grads.forEach((gradient, index) => {
      expectClose(gradient, plain.grads[index]!, 1e-4, `Gradient ${index}`);
    });
  });

  test('inputs that are not differentiated cost nothing: neither a gradient, nor a stage of theirs its backward pass', () => {
    const [x, w] = [tf.tensor1d([0.3, -1.2]), tf.tensor1d([1.5, 0.4])];
    let walks = 0;
    const watched = (value: tf.Tensor) =>
      tf.customGrad((given) => ({
        value: (given as tf.Tensor).clone(),
        gradFunc: (dy: tf.Tensor) => {
          walks += 1;
          return dy;
        },
      }))(value);
    const stage = (input: tf.Tensor): Stage<{}> => ({
      inputs: [x, input],
      run: () => ({ loss: tf.sum(watched(tf.mul(tf.square(x), input))), kept: {} }),
    });
    // The first stage depends on x alone, which is frozen; both on it.
    const f = () => ({ result: tf.add(stagedSum([stage(x)]).sum, stagedSum([stage(x), stage(w)]).sum) });
    const { value, grads } = differentiate(f, [w]);
    expectClose(value.result, [2 * (0.3 ** 3 - 1.2 ** 3) + 1.5 * 0.3 ** 2 + 0.4 * 1.2 ** 2], 1e-5, 'The sum');
    expectClose(grads[0]!, [0.3 ** 2, 1.2 ** 2], 1e-6, 'The gradient');
    expect(walks).toBe(1);
  });

  test('without differentiation, only the values are computed', () => {
    const x = tf.tensor1d([1, 2]);
    const { sum } = stagedSum([{ inputs: [x], run: () => ({ loss: tf.sum(x), kept: {} }) }]);
    expect(sum.dataSync()[0]).toBe(3);
  });
});
