import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { downloadTree, uploadTree } from '../checkpoint/state-tree.ts';
import type { Optimizer, Params, Selected, StateTree } from '../plugin/types.ts';
import { mapParams, stateTensors, tf } from '../tensor/index.ts';
import { useBackend } from './backends.ts';
import {
  backendsOf,
  expectAgree,
  expectNoLeak,
  expectSameBits,
  registryOf,
  type Subject,
  testRng,
  variants,
} from './subject.ts';

interface Progress {
  readonly params: Params;
  readonly state: StateTree;
}

/**
 * The contract of an optimizer: it finds a minimum, does nothing at a learning rate of 0, keeps the shape of its state,
 * continues from a stored state bit for bit, is not changed by being evaluated, touches no argument, leaks nothing. One that
 * takes a factor of the gradients does the same to the bit as with gradients multiplied before.
 */
export function describeOptimizer(
  subject: Subject & { /** Learning rate that finds the minimum. */ readonly lr?: number },
): void {
  const registry = registryOf(subject);
  const lr = subject.lr ?? 0.05;
  const targets = {
    'a.weight': [
      [1, -2, 0.5],
      [3, 0, -1],
    ],
    'b.bias': [0.3, -0.7],
  };

  describe.each(backendsOf(subject))('optimizer contract on %s', (backend) => {
    beforeAll(() => useBackend(backend));
    beforeEach(() => tf.engine().startScope());
    afterEach(() => tf.engine().endScope());

    describe.each(variants(subject))('%s', (_title, selected: Selected) => {
      const build = (): Optimizer => registry.create('optimizer', selected, {});
      const goal = (): Params =>
        Object.fromEntries(Object.entries(targets).map(([path, value]) => [path, tf.tensor(value)]));
      const start = (optimizer: Optimizer): Progress => {
        const params = mapParams(goal(), (value, path) => testRng.normal(path, value.shape, 1));
        return { params, state: optimizer.init(params) };
      };
      // Half the squared distance to the goal, and its gradients.
      const lossOf = (params: Params): tf.Tensor =>
        tf.div(tf.addN(Object.values(gradients(params)).map((part) => tf.sum(tf.square(part)))), 2);
      const gradients = (params: Params): Params => mapParams(goal(), (value, path) => tf.sub(params[path]!, value));
      const advance = (optimizer: Optimizer, from: Progress, steps: number, first = 1, rate = lr): Progress => {
        // Copies, since an update may write over what it is given.
        let { params, state } = copyOf(from);
        for (let step = first; step < first + steps; step++)
          ({ params, state } = optimizer.update({
            grads: gradients(params),
            params,
            state,
            lr: rate,
            step,
            loss: lossOf(params),
          }));
        return { params, state };
      };
      const copyOf = ({ params, state }: Progress): Progress =>
        uploadTree(downloadTree({ params, state })) as unknown as Progress;
      const weights = (optimizer: Optimizer, { params, state }: Progress): Params =>
        optimizer.evalParams?.(params, state) ?? params;
      const distance = (params: Params): number =>
        Math.sqrt(
          Object.values(gradients(params)).reduce((sum, part) => sum + tf.sum(tf.square(part)).dataSync()[0]!, 0),
        );

      test('finds the minimum of a parabola', () => {
        const optimizer = build();
        const from = start(optimizer);
        expect(distance(weights(optimizer, advance(optimizer, from, 400)))).toBeLessThan(0.1 * distance(from.params));
      });

      test('leaves the weights as they are at a learning rate of 0', () => {
        const optimizer = build();
        const from = start(optimizer);
        expectSameBits(weights(optimizer, advance(optimizer, from, 3, 1, 0)), from.params, 'Weights');
      });

      test('keeps the shape of its state', () => {
        const optimizer = build();
        const shape = ({ state }: Progress) =>
          [...downloadTree({ state })].map(([name, tensor]) => [name, tensor.dtype, tensor.shape]);
        const from = start(optimizer);
        expect(shape(advance(optimizer, from, 3))).toEqual(shape(from));
      });

      test('continues from a stored state bit for bit', () => {
        const optimizer = build();
        const half = advance(optimizer, start(optimizer), 5);
        const stored = copyOf(half);
        const [whole, resumed] = [advance(optimizer, half, 5, 6), advance(build(), stored, 5, 6)];
        expectSameBits(resumed.params, whole.params, 'Parameters');
        expectSameBits(weights(optimizer, resumed), weights(optimizer, whole), 'Evaluated weights');
      });

      test('is not changed by being evaluated, however often', () => {
        const optimizer = build();
        const plain = advance(optimizer, start(optimizer), 6);
        let watched = start(optimizer);
        for (let step = 1; step <= 6; step++) {
          for (let look = 0; look < step; look++) weights(optimizer, watched);
          watched = advance(optimizer, watched, 1, step);
        }
        expectSameBits(watched.params, plain.params, 'Parameters');
      });

      test('disposes none of its arguments, and changes neither gradients nor what shares data with the others', () => {
        const optimizer = build();
        const { params, state } = advance(optimizer, start(optimizer), 2);
        weights(optimizer, { params, state });
        const grads = gradients(params);
        const given = [...Object.values(params), ...stateTensors(state), ...Object.values(grads)];
        const sharing = given.map((tensor) => tensor.clone());
        const before = sharing.map((tensor) => tensor.dataSync().slice());
        optimizer.update({ grads, params, state, lr, step: 3, loss: lossOf(params) });
        expect(sharing.map((tensor) => tensor.dataSync().slice())).toEqual(before);
        expect(given.filter((tensor) => tensor.isDisposed)).toEqual([]);
      });

      const takesFactor = build().takesGradientFactor === true;
      test.runIf(takesFactor)('takes a factor as if the gradients had been multiplied before', () => {
        const optimizer = build();
        const from = advance(optimizer, start(optimizer), 2);
        const factor = tf.scalar(0.3);
        const grads = gradients(from.params);
        const given = { lr, step: 3, loss: lossOf(from.params) };
        const scaled = mapParams(grads, (gradient) => tf.mul(gradient, factor));
        const expected = optimizer.update({ ...copyOf(from), ...given, grads: scaled });
        const actual = optimizer.update({ ...copyOf(from), ...given, grads, gradientFactor: factor });
        expectSameBits(actual.params, expected.params, 'Parameters');
        expect(downloadTree({ state: actual.state })).toEqual(downloadTree({ state: expected.state }));
      });

      test('does not depend on the order of the parameters', () => {
        const reversed = (params: Params): Params => Object.fromEntries(Object.entries(params).toReversed());
        const from = start(build());
        const backwards = { params: reversed(from.params), state: build().init(reversed(from.params)) };
        const [one, other] = [from, backwards].map((first) => advance(build(), first, 3).params);
        for (const path of Object.keys(targets)) expectAgree(other![path]!, one![path]!, `"${path}"`, 1e-6);
      });

      test('leaves no tensors behind', () => {
        const optimizer = build();
        const from = start(optimizer);
        const [grads, loss] = [gradients(from.params), lossOf(from.params)];
        expectNoLeak(() => {
          const { params, state } = tf.tidy(() => {
            const next = optimizer.update({ grads, params: from.params, state: from.state, lr, step: 1, loss });
            return { params: next.params, state: next.state };
          });
          return [...Object.values(params), ...stateTensors(state)];
        });
      });
    });
  });
}
