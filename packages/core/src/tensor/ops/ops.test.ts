import { beforeAll, describe, expect, test } from 'vitest';

import { TEST_BACKENDS, useBackend } from '../../testing/backends.ts';
import { expectClose } from '../../testing/close.ts';
import { expectGradients } from '../../testing/gradients.ts';
import { differentiate } from '../differentiate.ts';
import { keyedRng } from '../rng.ts';
import { tf } from '../tf.ts';
import { gelu, silu, swiglu } from './activation.ts';
import { causalAttention } from './attention.ts';
import { causalConvolution } from './causal-convolution.ts';
import { columnSums } from './column-sums.ts';
import { linearCrossEntropy } from './cross-entropy.ts';
import { embedding } from './embedding.ts';
import { geluFeedForward } from './feed-forward.ts';
import { linear } from './linear.ts';
import { matmul } from './matmul.ts';
import { layerNorm, rmsNorm } from './norm.ts';
import { rotary } from './rotary.ts';

// Tensors made while tests are collected move to the backend that a test uses.
await useBackend('composite');

const rng = keyedRng(3, 'test');
const random = (name: string, shape: number[], scale = 1) => rng.normal(name, shape, scale);

/** Nested arrays of a tensor's values, float64 arithmetic from here on. */
const matrix = (tensor: tf.Tensor) => tensor.arraySync() as Matrix;
const vector = (tensor: tf.Tensor) => tensor.arraySync() as number[];
const cube = (tensor: tf.Tensor) => tensor.arraySync() as Matrix[];
const hypercube = (tensor: tf.Tensor) => tensor.arraySync() as Matrix[][];
type Matrix = number[][];
const dot = (a: number[], b: number[]) => a.reduce((sum, value, index) => sum + value * b[index]!, 0);
const columns = (m: Matrix) => m[0]!.map((_, index) => m.map((row) => row[index]!));
const product = (a: Matrix, b: Matrix) => a.map((row) => columns(b).map((column) => dot(row, column)));
const softmax = (row: number[]) => {
  const peak = Math.max(...row);
  const powers = row.map((value) => Math.exp(value - peak));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
};

describe.each(TEST_BACKENDS)('ops on %s', (backend) => {
  beforeAll(() => useBackend(backend));

  describe.each([
    { transposeA: false, transposeB: false },
    { transposeA: true, transposeB: false },
    { transposeA: false, transposeB: true },
    { transposeA: true, transposeB: true },
  ])('matmul %o', (options) => {
    // Sizes around the transposition's tile of 32.
    test.each([
      [1, 1, 1],
      [3, 5, 2],
      [33, 31, 40],
      [64, 1, 65],
    ])('[%i, %i] x [%i]', (rows, inner, cols) => {
      const a = random('a', options.transposeA ? [inner, rows] : [rows, inner]);
      const b = random('b', options.transposeB ? [cols, inner] : [inner, cols]);
      const [left, right] = [matrix(a), matrix(b)];
      const expected = product(options.transposeA ? columns(left) : left, options.transposeB ? columns(right) : right);
      expectClose(matmul(a, b, options), expected.flat(), 1e-5 * Math.sqrt(inner), 'product');
    });

    test('batches', () => {
      const a = random('a', options.transposeA ? [2, 3, 4, 5] : [2, 3, 5, 4]);
      const b = random('b', options.transposeB ? [2, 3, 6, 4] : [2, 3, 4, 6]);
      const y = matmul(a, b, options);
      expect(y.shape).toEqual([2, 3, 5, 6]);
      expectClose(y, tf.matMul(a, b, options.transposeA, options.transposeB), 1e-5, 'product');
      expectGradients(([p, q]) => matmul(p!, q!, options), [a, b]);
    });
  });

  test('linear: value and gradients, with and without bias', () => {
    const inputs = [random('x', [2, 3, 5]), random('w', [5, 4]), random('bias', [4])];
    const expected = tf.add(tf.matMul(tf.reshape(inputs[0]!, [6, 5]), inputs[1] as tf.Tensor2D), inputs[2]!);
    expectClose(linear(inputs[0]!, inputs[1]!, inputs[2]), expected, 1e-5, 'value');
    expectGradients(([x, w, b]) => linear(x!, w!, b), inputs);
    expectGradients(([x, w]) => linear(x!, w!), inputs.slice(0, 2));
  });

  test('linear with a residual', () => {
    const [x, w, bias, residual] = [
      random('x', [2, 3, 5]),
      random('w', [5, 4]),
      random('b', [4]),
      random('r', [2, 3, 4]),
    ];
    expectClose(linear(x, w, bias, { residual }), tf.add(linear(x, w, bias), residual), 1e-5, 'value');
    expectGradients(([p, q, r, s]) => linear(p!, q!, r, { residual: s }), [x, w, bias, residual]);
    expectGradients(([p, q, s]) => linear(p!, q!, undefined, { residual: s }), [x, w, residual]);
  });

  test.each([
    { biases: true, added: true },
    { biases: false, added: false },
    { biases: false, added: true },
  ])('geluFeedForward %o: as its parts, and gradients', ({ biases, added }) => {
    const [x, up, down] = [random('x', [2, 3, 4]), random('up', [4, 9]), random('down', [9, 5])];
    const [upBias, downBias] = biases ? [random('upBias', [9]), random('downBias', [5])] : [];
    const residual = added ? random('residual', [2, 3, 5]) : undefined;
    const inputs = [x, up, down, upBias, downBias, residual];
    const given = inputs.flatMap((tensor) => tensor ?? []);
    const f = (args: readonly (tf.Tensor | undefined)[]) => {
      const rest = [...args];
      const [p, q, r, s, t, u] = inputs.map((tensor) => (tensor === undefined ? undefined : rest.shift()));
      return geluFeedForward(p!, { weight: q!, bias: s }, { weight: r!, bias: t }, u);
    };
    const parts = linear(gelu(linear(x, up, upBias)), down, downBias, { residual });
    expectClose(f(given), parts, 1e-5, 'value');
    expectGradients(f, given);
  });

  test('columnSums', () => {
    expectClose(
      columnSums(
        tf.tensor2d([
          [1, 2, 3],
          [4, 5, 6],
        ]),
      ),
      [5, 7, 9],
      0,
      'sums',
    );
  });

  test('gelu, silu and swiglu: values and gradients', () => {
    const x = tf.tensor1d([-3, -1, 0, 0.5, 2]);
    // x Phi(x) with Phi from tables of the normal distribution.
    expectClose(gelu(x), [-0.0040497, -0.1586553, 0, 0.3457312, 1.9544997], 1e-6, 'gelu');
    const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));
    expectClose(
      silu(x),
      [-3, -1, 0, 0.5, 2].map((value) => value * sigmoid(value)),
      1e-6,
      'silu',
    );
    for (const f of [gelu, silu]) expectGradients(([value]) => f(value!), [x]);
    expectGradients(([gate, value]) => swiglu(gate!, value!), [x, tf.tensor1d([1, -2, 3, 0.1, 0.7])]);
  });

  test('embedding: rows, and sums of gradients where an id repeats', () => {
    const weight = random('weight', [5, 3]);
    const ids = tf.tensor2d(
      [
        [4, 0, 4],
        [1, 4, 2],
      ],
      [2, 3],
      'int32',
    );
    const table = matrix(weight);
    expectClose(
      embedding(weight, ids),
      [4, 0, 4, 1, 4, 2].flatMap((id) => table[id]!),
      0,
      'rows',
    );
    const { grads } = differentiate(() => ({ result: tf.sum(embedding(weight, ids)) }), [weight]);
    expectClose(
      grads[0]!,
      [1, 1, 1, 3].flatMap((count, row) => (row === 3 ? [0, 3] : [count]).flatMap((c) => [c, c, c])),
      0,
      'gradient',
    );
  });

  test('layerNorm and rmsNorm: values against the formula, gradients against differences', () => {
    const [x, weight, bias] = [random('x', [2, 3, 7], 2), random('weight', [7]), random('bias', [7])];
    const rows = cube(x).flat();
    const [w, b] = [vector(weight), vector(bias)];
    const formula = (row: number[], centre: boolean, shift: number[]) => {
      const mean = centre
        ? dot(
            row,
            row.map(() => 1),
          ) / row.length
        : 0;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
      return row.map((value, index) => ((value - mean) / Math.sqrt(variance + 1e-5)) * w[index]! + shift[index]!);
    };
    const zeros = b.map(() => 0);
    expectClose(
      layerNorm(x, weight, bias),
      rows.flatMap((row) => formula(row, true, b)),
      2e-6,
      'layerNorm',
    );
    expectClose(
      layerNorm(x, weight),
      rows.flatMap((row) => formula(row, true, zeros)),
      2e-6,
      'without bias',
    );
    expectClose(
      rmsNorm(x, weight),
      rows.flatMap((row) => formula(row, false, zeros)),
      2e-6,
      'rmsNorm',
    );
    expectGradients(([p, q, r]) => layerNorm(p!, q!, r), [x, weight, bias]);
    expectGradients(([p, q]) => layerNorm(p!, q!), [x, weight]);
    expectGradients(([p, q]) => rmsNorm(p!, q!), [x, weight]);
  });

  test('rotary: angles of the paper, relative positions only, gradients', () => {
    const heads = (tensor: tf.Tensor) => hypercube(tf.transpose(tensor, [0, 2, 1, 3]));
    const x = random('x', [2, 4, 3, 6]);
    const y = heads(rotary(x, { base: 100, offset: 2 }));
    const input = heads(x);
    const angle = (2 + 3) * 100 ** (-2 / 6); // fourth position, second pair
    const [first, second] = [input[1]![2]![3]![1]!, input[1]![2]![3]![4]!];
    expectClose([y[1]![2]![3]![1]!], [first * Math.cos(angle) - second * Math.sin(angle)], 1e-5, 'first of a pair');
    expectClose([y[1]![2]![3]![4]!], [second * Math.cos(angle) + first * Math.sin(angle)], 1e-5, 'second of a pair');
    const scores = (offset: number) => {
      const turned = tf.transpose(rotary(x, { base: 100, offset }), [0, 2, 1, 3]);
      return tf.matMul(turned, turned, false, true);
    };
    expectClose(scores(0), scores(1000), 1e-3, 'scores');
    const positions = tf.tensor2d(
      [
        [0, 1, 0, 1],
        [5, 6, 7, 8],
      ],
      [2, 4],
      'int32',
    );
    expectClose(
      tf.slice(rotary(x, { base: 100, positions }), [1, 0, 0, 0], [1, 4, 3, 6]),
      tf.slice(rotary(x, { base: 100, offset: 5 }), [1, 0, 0, 0], [1, 4, 3, 6]),
      1e-6, // sines of few rows are not the backend's
      'given positions',
    );
    const long = random('x', [1, 40, 3, 6]);
    const part = tf.slice(long, [0, 20, 0, 0], [1, 3, 3, 6]);
    expectClose(
      rotary(part, { base: 100, offset: 27 }),
      tf.slice(rotary(long, { base: 100, offset: 7 }), [0, 20, 0, 0], [1, 3, 3, 6]),
      1e-5, // sines of angles up to 30, in float32
      'few rows',
    );
    expectGradients(([p]) => rotary(p!, { base: 100, positions }), [x]);
  });

  describe('causalAttention', () => {
    const [batch, heads, kvHeads, time, size] = [2, 4, 2, 6, 3];
    const query = random('q', [batch, time, heads, size]);
    const key = random('k', [batch, time, kvHeads, size]);
    const value = random('v', [batch, time, kvHeads, size]);
    const segmentIds = [
      [0, 0, 0, 1, 1, 2],
      [0, 1, 1, 1, 1, 1],
    ];
    const segments = tf.tensor2d(segmentIds, [batch, time], 'int32');

    const reference = (see: (b: number, from: number, to: number) => boolean) => {
      const [q, k, v] = [query, key, value].map((tensor) => hypercube(tensor)) as [
        number[][][][],
        number[][][][],
        number[][][][],
      ];
      return q.flatMap((rows, b) =>
        rows.flatMap((perHead, t) =>
          perHead.flatMap((row, h) => {
            const [keys, values] = [k, v].map((tensor) => tensor[b]!.map((at) => at[Math.floor(h / 2)]!)) as [
              Matrix,
              Matrix,
            ];
            const scores = keys.map((other, s) => (see(b, t, s) ? dot(row, other) / Math.sqrt(size) : -Infinity));
            return product([softmax(scores)], values)[0]!;
          }),
        ),
      );
    };

    test('grouped queries see the past', () => {
      expectClose(
        causalAttention(query, key, value),
        reference((_b, t, s) => s <= t),
        2e-6,
        'output',
      );
    });
    test('a window limits how far back', () => {
      const expected = reference((_b, t, s) => s <= t && s > t - 3);
      expectClose(causalAttention(query, key, value, { window: 3 }), expected, 2e-6, 'output');
    });
    test('segments keep documents apart', () => {
      const expected = reference((b, t, s) => s <= t && segmentIds[b]![s] === segmentIds[b]![t]);
      expectClose(causalAttention(query, key, value, { segments }), expected, 2e-6, 'output');
    });
    test('fewer queries than keys are the last positions', () => {
      const late = tf.slice(query, [0, 4, 0, 0], [-1, 2, -1, -1]);
      const whole = tf.slice(
        causalAttention(query, key, value, { window: 3, segments }),
        [0, 4, 0, 0],
        [-1, 2, -1, -1],
      );
      expectClose(causalAttention(late, key, value, { window: 3, segments }), whole, 1e-6, 'output');
    });
    test.each([{}, { window: 2 }, { segments }])('gradients %#', (options) => {
      expectGradients(([q, k, v]) => causalAttention(q!, k!, v!, options), [query, key, value]);
    });
    test('very large scores neither overflow nor let masked positions in', () => {
      const output = causalAttention(tf.mul(query, 1e4), tf.mul(key, 1e4), value);
      expectClose(
        tf.slice(output, [0, 0, 0, 0], [1, 1, 1, size]),
        tf.slice(value, [0, 0, 0, 0], [1, 1, 1, size]),
        0,
        'first',
      );
      expect(Number.isFinite(tf.sum(output).dataSync()[0])).toBe(true);
    });
  });

  describe('causalConvolution', () => {
    test('sums the last taps, the last one on the present', () => {
      const x = tf.tensor3d([[[1], [2], [3], [4]]]);
      const y = causalConvolution(x, tf.tensor2d([[100], [10], [1]]), tf.tensor1d([0.5]));
      expectClose(y, [1.5, 12.5, 123.5, 234.5], 1e-4, 'output');
    });
    test('more taps than positions, and gradients', () => {
      const inputs = [random('x', [2, 5, 3]), random('taps', [4, 3]), random('bias', [3])];
      expectGradients(([x, w, b]) => causalConvolution(x!, w!, b), inputs);
      expectGradients(([x, w]) => causalConvolution(x!, w!), [random('short', [2, 2, 3]), inputs[1]!]);
    });
  });

  describe('linearCrossEntropy', () => {
    const [rows, width, vocab] = [7, 5, 11];
    const hidden = random('hidden', [rows, width]);
    const labelIds = [3, -1, 0, 10, 5, -1, 3];
    const labels = tf.tensor1d(labelIds, 'int32');
    const weight = (transposed: boolean) => random('head', transposed ? [vocab, width] : [width, vocab]);

    describe.each([
      { transposed: false },
      { transposed: true },
      { transposed: false, tile: 4 },
      { transposed: true, tile: 4 },
    ])('%o', (options) => {
      test('is the negative log-probability in nats, 0 where ignored', () => {
        const table = matrix(weight(options.transposed));
        const logits = product(matrix(hidden), options.transposed ? columns(table) : table);
        const expected = logits.map((row, index) =>
          labelIds[index]! < 0 ? 0 : -Math.log(softmax(row)[labelIds[index]!]!),
        );
        expectClose(linearCrossEntropy(hidden, weight(options.transposed), labels, options), expected, 3e-6, 'loss');
      });
      test('gradients', () => {
        const inputs = [hidden, weight(options.transposed)];
        expectGradients(([h, w]) => linearCrossEntropy(h!, w!, labels, options), inputs);
      });
      test('logits far apart neither overflow nor lose the loss', () => {
        const large = tf.mul(weight(options.transposed), 1e4);
        const loss = linearCrossEntropy(hidden, large, labels, options).dataSync();
        expect(loss.every((value) => Number.isFinite(value) && value >= 0)).toBe(true);
      });
    });
  });
});
