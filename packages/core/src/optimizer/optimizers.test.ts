import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { Registry } from '../plugin/registry.ts';
import type { Selected } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { expectClose } from '../testing/close.ts';
import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';

const registry = new Registry([builtin]);

describe.each(TEST_BACKENDS)('optimizers on %s', (backend) => {
  beforeAll(() => useBackend(backend));

  /** Values of the parameter `w` [1, 1] after steps with the gradients given. */
  const trace = (selected: Selected, grads: number[], lr = 0.1) => {
    const optimizer = registry.create('optimizer', selected, {});
    let params: Record<string, tf.Tensor> = { w: tf.tensor2d([[1]]) };
    let state = optimizer.init(params);
    const loss = tf.scalar(1);
    return grads.map((gradient, index) => {
      const result = optimizer.update({
        grads: { w: tf.tensor2d([[gradient]]) },
        params,
        state,
        lr,
        step: index + 1,
        loss,
      });
      ({ params, state } = result);
      return params['w']!.dataSync()[0]!;
    });
  };

  test('adamw: the first step has the size of the learning rate; decay is decoupled', () => {
    expectClose(trace({ name: 'adamw', weightDecay: 0 }, [5, 5]), [0.9, 0.8], 1e-6, 'adamw');
    // 1 * (1 - 0.1 * 0.5) - 0.1
    expectClose(trace({ name: 'adamw', weightDecay: 0.5 }, [5]), [0.85], 1e-6, 'adamw with decay');
  });

  test('lion: sign of the interpolated momentum', () => {
    const options = { name: 'lion', weightDecay: 0, beta1: 0.9, beta2: 0.5 };
    // m: 0 -> 1 -> -0.75; directions: sign(0.1 * 2) = 1, sign(0.9 * 1 - 0.1 * 2.5) = 1, sign(-0.675 + 0.01) = -1
    expectClose(trace(options, [2, -2.5, 0.1]), [0.9, 0.8, 0.9], 1e-6, 'lion');
  });

  test('sgd: plain, heavy ball, Nesterov', () => {
    expectClose(trace({ name: 'sgd' }, [1, 2]), [0.9, 0.7], 1e-6, 'plain');
    expectClose(trace({ name: 'sgd', momentum: 0.5 }, [1, 2]), [0.9, 0.65], 1e-6, 'heavy ball');
    expectClose(trace({ name: 'sgd', momentum: 0.5, nesterov: true }, [1, 2]), [0.85, 0.525], 1e-6, 'Nesterov');
  });

  describe('weight decay', () => {
    const shrinks = (decay: unknown) => {
      const options = { name: 'sgd', weightDecay: 0.5, decay };
      const optimizer = registry.create('optimizer', options, {});
      const params = { 'a.weight': tf.ones([2, 2]), 'a.bias': tf.ones([2]), 'norm.weight': tf.ones([2]) };
      const grads = { 'a.weight': tf.zeros([2, 2]), 'a.bias': tf.zeros([2]), 'norm.weight': tf.zeros([2]) };
      const next = optimizer.update({
        grads,
        params,
        state: optimizer.init(params),
        lr: 0.1,
        step: 1,
        loss: tf.scalar(1),
      });
      return Object.entries(next.params).flatMap(([path, value]) => (value.dataSync()[0]! < 1 ? [path] : []));
    };
    test('falls on matrices unless told otherwise', () => {
      expect(shrinks(undefined)).toEqual(['a.weight']);
      expect(shrinks('all')).toEqual(['a.weight', 'a.bias', 'norm.weight']);
      expect(shrinks(['*.weight'])).toEqual(['a.weight', 'norm.weight']);
      expect(shrinks(['a.*'])).toEqual(['a.weight', 'a.bias']);
    });
    test('a pattern that matches nothing is an error', () => {
      expect(() => shrinks(['a.*', 'a.wieght'])).toThrowErrorMatchingInlineSnapshot(
        `[LlmxError: The decay pattern "a.wieght" matches no parameter that is trained.]`,
      );
    });
  });
});
