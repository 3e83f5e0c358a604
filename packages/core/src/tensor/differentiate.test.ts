import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';
import { expectClose } from '../testing/close.ts';
import { differentiate, recomputed, staged } from './differentiate.ts';
import { linear } from './ops/linear.ts';
import { isDifferentiated } from './tape.ts';
import { tf } from './tf.ts';

describe.each(TEST_BACKENDS)('differentiation on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  let tensors = 0;
  beforeEach(() => {
    tf.engine().startScope();
    tensors = tf.memory().numTensors;
  });
  afterEach(() => tf.engine().endScope());

  const x = () =>
    tf.tensor2d([
      [1, -2],
      [3, 0.5],
    ]);

  test('agrees with the derivative of a polynomial', () => {
    const input = x();
    const { value, grads } = differentiate(() => ({ result: tf.sum(tf.mul(input, tf.square(input))) }), [input]);
    expectClose(value.result, [1 - 8 + 27 + 0.125], 1e-5, 'value');
    expectClose(grads[0]!, [3, 12, 27, 0.75], 1e-4, 'gradient');
  });

  test('passes by masks computed from differentiable values', () => {
    const input = x();
    const { grads } = differentiate(
      () => ({ result: tf.where(tf.greater(input, 0), input, tf.mul(input, 2)) }),
      [input],
    );
    expectClose(grads[0]!, [1, 2, 1, 1], 0, 'gradient');
  });

  test('gives zeros for what the result does not depend on', () => {
    const [a, b] = [x(), x()];
    const { grads } = differentiate(() => ({ result: tf.sum(a) }), [a, b]);
    expectClose(grads[1]!, [0, 0, 0, 0], 0, 'gradient');
  });

  test('keeps gradients apart when an op hands its argument through or uses an input twice', () => {
    const input = x();
    const passThrough = tf.customGrad((a, b) => ({
      value: tf.add(a as tf.Tensor, b as tf.Tensor),
      gradFunc: (dy: tf.Tensor) => [dy, dy],
    }));
    const f = () => ({ result: tf.sum(tf.mul(passThrough(input, tf.square(input)), input)) }); // x^2 + x^3
    expectClose(differentiate(f, [input]).grads[0]!, [5, 8, 33, 1.75], 1e-4, 'gradient');
  });

  test('adds the gradients of several linear maps of one tensor', () => {
    const input = x();
    const weights = [1, 2, 3].map((factor) => tf.mul(x(), factor));
    const f = () => ({ result: tf.addN(weights.map((weight) => tf.sum(linear(input, weight)))) });
    expectClose(differentiate(f, [input]).grads[0]!, [-6, 21, -6, 21], 1e-5, 'gradient');
  });

  test("keeps its gradients from the library's own driver at work in the backward pass of an op", () => {
    const [input, weight] = [x(), x()];
    const nested = tf.customGrad((a) => ({
      value: tf.mul(a as tf.Tensor, 2),
      gradFunc: (dy: tf.Tensor) => {
        const inner = tf.grad((w: tf.Tensor) => tf.sum(linear(input, w)))(weight);
        return tf.add(tf.mul(dy, 2), tf.mul(inner, 0));
      },
    }));
    const f = () => ({ result: tf.add(tf.sum(nested(input)), tf.sum(linear(input, weight))) });
    expectClose(differentiate(f, [input]).grads[0]!, [1, 5.5, 1, 5.5], 1e-5, 'gradient');
  });

  test('names the op that has no gradient', () => {
    const input = x();
    expect(() =>
      differentiate(() => ({ result: tf.sum(tf.cumprod(input, 0)) }), [input]),
    ).toThrowErrorMatchingInlineSnapshot(`[LlmxError: TensorFlow.js has no gradient for the op Cumprod.]`);
  });

  test('can be nested in a recorded function without leaving a trace there', () => {
    const input = x();
    const { grads } = differentiate(() => {
      const inner = differentiate(() => ({ result: tf.sum(tf.square(input)) }), [input]);
      return { result: tf.sum(tf.mul(input, tf.scalar(inner.grads[0]!.dataSync()[0]!))) };
    }, [input]);
    expectClose(grads[0]!, [2, 2, 2, 2], 0, 'gradient');
  });

  test('staged and recomputed forms give the gradients of the plain form', () => {
    const [a, b] = [
      x(),
      tf.tensor2d([
        [0.3, 1],
        [-1, 2],
      ]),
    ];
    const plain = (p: tf.Tensor, q: tf.Tensor) => tf.tanh(tf.matMul(p, tf.sigmoid(q)));
    const loss = (y: tf.Tensor) => tf.sum(tf.square(y));
    const reference = differentiate(() => ({ result: tf.mul(loss(plain(a, b)), 3) }), [a, b]);
    const early = differentiate(
      () => ({
        result: tf.mul(
          staged(() => loss(plain(a, b)), [a, b]),
          3,
        ),
      }),
      [a, b],
    );
    const late = differentiate(() => ({ result: tf.mul(loss(recomputed((p, q) => plain(p, q), [a, b])), 3) }), [a, b]);
    for (const { value, grads } of [early, late]) {
      expectClose(value.result, reference.value.result, 0, 'value');
      grads.forEach((gradient, index) => expectClose(gradient, reference.grads[index]!, 1e-6, 'gradient'));
    }
  });

  test('stages nest: a recomputed part inside a staged loss inside another', () => {
    const input = x();
    const cube = (p: tf.Tensor) => recomputed((q) => tf.mul(q, tf.square(q)), [p]);
    const inner = (p: tf.Tensor) => staged(() => tf.sum(cube(p)), [p]);
    const { grads } = differentiate(
      () => ({ result: staged(() => tf.add(inner(input), tf.sum(input)), [input]) }),
      [input],
    );
    expectClose(grads[0]!, [4, 13, 28, 1.75], 1e-4, 'gradient');
  });

  test('leaves no tensor behind but what it returns', () => {
    const input = x();
    const { value, grads } = tf.tidy(() => {
      const run = differentiate(() => ({ result: tf.sum(tf.exp(tf.tanh(tf.matMul(input, input)))) }), [input]);
      return { value: run.value.result, grads: run.grads };
    });
    tf.dispose([value, grads, input]);
    expect(tf.memory().numTensors).toBe(tensors);
  });

  test('keeps nothing for what no gradient goes to', () => {
    const [frozen, weight] = [tf.ones([100]), tf.ones([100])];
    let kept = 0;
    const f = () => {
      const before = tf.memory().numTensors;
      const deep = tf.tidy(() => [1, 2, 3, 4].reduce((y: tf.Tensor) => tf.exp(tf.mul(tf.sigmoid(y), frozen)), frozen));
      kept = tf.memory().numTensors - before;
      expect([isDifferentiated(deep), isDifferentiated(weight)]).toEqual([false, true]);
      return { result: tf.sum(tf.mul(deep, weight)) };
    };
    expect(differentiate(f, [weight]).grads[0]!.shape).toEqual([100]);
    expect(kept).toBe(1); // the result
    expect([isDifferentiated(frozen), isDifferentiated(weight)]).toEqual([false, false]);
  });

  test('leaves out the products for the gradients that nobody wants', async () => {
    const [input, weight] = [x(), x()];
    // A kernel of each product forward; backward one for each factor.
    const products = async (xs: tf.Tensor[]): Promise<number> => {
      const { kernels } = await tf.profile(() => {
        tf.tidy(() => differentiate(() => ({ result: tf.sum(linear(input, weight)) }), xs).grads);
        return [];
      });
      return kernels.filter(({ name }) => /matmul/i.test(name)).length;
    };
    expect([await products([input, weight]), await products([weight]), await products([input])]).toEqual([3, 2, 2]);
  });

  test('frees what was saved when the function fails half-way', () => {
    const input = x();
    const fail = () => {
      tf.exp(input);
      throw new Error('half-way');
    };
    expect(() => tf.tidy(() => differentiate(fail, [input]).grads)).toThrow('half-way');
    input.dispose();
    expect(tf.memory().numTensors).toBe(tensors);
  });

  test('frees activations while it walks back', () => {
    const input = tf.ones([1000]);
    const bytesAtTheEnd = (length: number) => {
      let bytes = 0;
      // Its backward pass is the last one, when everything later has been freed.
      const first = tf.customGrad((value) => ({
        value: (value as tf.Tensor).clone(),
        gradFunc: (dy: tf.Tensor) => {
          bytes = tf.memory().numBytes;
          return dy;
        },
      }));
      const forward = () => {
        let y: tf.Tensor = first(input);
        for (let index = 0; index < length; index++) y = tf.exp(tf.mul(y, 0.1));
        return tf.sum(y);
      };
      tf.dispose(tf.tidy(() => differentiate(() => ({ result: tf.tidy(forward) }), [input]).grads));
      return bytes;
    };
    expect(bytesAtTheEnd(40)).toBe(bytesAtTheEnd(4));
  });
});
