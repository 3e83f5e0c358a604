// Kernels given bfloat16 in memory, where they say that they take it, and tensors that the backend keeps that way.
import { compile, differentiate, expr, type Expression, geluFeedForward, linear, tf } from '@llmx/core';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectLikeReference, values } from '../testing/compare.ts';
import { type Argument, argument, describeEngine, narrowed, widened } from '../testing/kernels.ts';
import { assemble } from './assemble.ts';
import { attentionKernels } from './attention.ts';
import { matmulKernels } from './matmul.ts';
import { normKernels } from './norm.ts';

/** Results that differ in the last bits of float32 may be rounded to neighbours, 2^-7 apart at most. */
const ROUNDED = { relative: 2 ** -7, absolute: 1e-6 };

const input = (index: number): Expression => ({ op: 'input', args: [], value: index });
const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);
const numbers = (seed: number, shape: readonly number[]) => values(sizeOf(shape), seed, -1, 1);
const narrow = (seed: number, ...shape: number[]): Argument => argument(narrowed(numbers(seed, shape)), ...shape);
const wide = (seed: number, ...shape: number[]): Argument => argument(numbers(seed, shape), ...shape);
const narrowResult = (...shape: number[]): Argument => argument(new Uint16Array(sizeOf(shape)).fill(0xffff), ...shape);

describeEngine('bfloat16 in memory', () => {
  test.each([
    [1, 40, 30],
    [13, 50, 20],
    [13, 1, 21],
    [70, 130, 801],
    // Rows of a that stay where they are.
    [48, 50, 1602],
    [150, 97, 64],
    [3, 200, 1],
  ])('products of %i x %i x %i, any operand, any result', (m, n, k) => {
    // Bits: a, b, factor, results in bfloat16; transposes; what is rounded in the product.
    for (let variant = 1; variant < 128; variant += m * n < 1000 ? 1 : 13) {
      const has = (bit: number): boolean => (variant & (1 << bit)) !== 0;
      const given = (bit: number, seed: number, ...shape: number[]) =>
        has(bit) ? narrow(seed, ...shape) : wide(seed, ...shape);
      const result = () => (has(3) ? narrowResult(m, n) : argument(new Float32Array(m * n).fill(NaN), m, n));
      expectLikeReference('LlmxMatmul', `${m}x${n}x${k} ${variant}`, {
        tensors: () => [
          given(0, 1, m * k),
          given(1, 2, k * n),
          wide(3, n),
          has(4) ? wide(4, m, n) : undefined,
          given(2, 5, m, n),
          result(),
          result(),
        ],
        numbers: [1, m, n, k, +has(4), +has(5), 0, 0, 2, +has(6)],
        results: [5, 6],
        tolerance: has(3)
          ? { relative: ROUNDED.relative, absolute: 3e-6 * (1 + Math.sqrt(k)) }
          : { relative: 1e-5, absolute: 3e-6 * (1 + Math.sqrt(k)) },
      });
    }
  });

  test.each([
    [1, 8],
    [4, 8],
    [5, 8],
    [70, 20],
    [130, 64],
  ])('attention over %i positions, heads of %i', (time, size) => {
    const shape = [2, time, 2, size];
    const stated = [2, time, time, 2, 2, size, 1 / Math.sqrt(size), 0, 0];
    const inputs = () => [narrow(1, ...shape), narrow(2, ...shape), narrow(3, ...shape)];
    const logSum = () => argument(new Float32Array(4 * time), 2, 2, time);
    expectLikeReference('LlmxAttention', `${time} ${size}`, {
      tensors: () => [...inputs(), undefined, narrowResult(...shape), logSum()],
      numbers: stated,
      results: [4, 5],
      tolerance: ROUNDED,
    });
    const results = () => [1, 2, 3].map(() => argument(new Float32Array(sizeOf(shape)).fill(NaN), ...shape));
    expectLikeReference('LlmxAttentionGrad', `${time} ${size}`, {
      tensors: () => [
        wide(4, ...shape),
        ...inputs(),
        narrow(5, ...shape),
        wide(6, 2, 2, time),
        undefined,
        ...results(),
      ],
      numbers: stated,
      results: [7, 8, 9],
      tolerance: { relative: 1e-5, absolute: 1e-4 },
    });
  });

  test.each([1, 15, 16, 100, 1027])('norms, turns, sums and casts of %i', (width) => {
    expectLikeReference('LlmxNorm', `${width}`, {
      tensors: () => [
        wide(1, 70, width),
        wide(2, width),
        wide(3, width),
        narrowResult(70, width),
        wide(0, 70),
        wide(0, 70),
      ],
      numbers: [70, width, 1e-5, 1],
      results: [3],
      tolerance: { ...ROUNDED, absolute: 1e-4 },
    });
    expectLikeReference('LlmxReduce', `${width}`, {
      tensors: () => [narrow(1, 70, width), wide(0, width)],
      numbers: [0, 1, 70, width, 1],
      results: [1],
      tolerance: { relative: 1e-5, absolute: 1e-5 },
    });
    expectLikeReference('LlmxCast', `${width}`, {
      tensors: () => [narrow(1, width), wide(0, width)],
      results: [1],
    });
    expectLikeReference('LlmxRotary', `${width}`, {
      tensors: () => [narrow(1, 2, 3, 1, 2 * width), wide(2, 3, width), wide(3, 3, width), narrowResult(6, 2 * width)],
      numbers: [2, 3, 1, 2 * width, 1],
      results: [3],
      tolerance: ROUNDED,
    });
  });

  test.each([1, 17, 4097, 70_000])('a sum of squares of %i', (size) => {
    expectLikeReference('LlmxSumOfSquares', `${size}`, {
      tensors: () => [narrow(1, size), wide(0, 1)],
      results: [1],
      tolerance: { relative: 1e-5, absolute: 0 },
    });
  });

  test.each([1, 17, 512, 513, 20_000])('a program over %i elements', (size) => {
    const program = compile([expr.mul(input(0), input(1)), expr.add(input(1), input(2)), expr.exp(input(0))], 3);
    const { header, uniforms } = assemble(program);
    expectLikeReference('LlmxElementwise', `${size}`, {
      tensors: () => [
        narrow(1, size),
        wide(2, size),
        narrow(3, 1),
        narrowResult(size),
        argument(new Float32Array(size)),
        narrowResult(size),
      ],
      numbers: [size, ...header, ...uniforms([])],
      results: [3, 4, 5],
      tolerance: ROUNDED,
    });
  });

  test.each([0, 1])('linear + cross-entropy, transposed %i', (transposed) => {
    const [rows, width, vocab] = [20, 33, 90];
    const labels = argument(Int32Array.from({ length: rows }, (_, row) => (row * 7) % vocab));
    const given = () => [narrow(1, rows, width), wide(2, width * vocab), labels];
    expectLikeReference('LlmxLinearCrossEntropy', `${transposed}`, {
      tensors: () => [...given(), wide(0, rows), wide(0, rows, vocab), wide(0, rows)],
      numbers: [rows, width, vocab, transposed, 1],
      results: [3, 4, 5],
      tolerance: { relative: 1e-5, absolute: 1e-5 },
    });
    expectLikeReference('LlmxLinearCrossEntropyGrad', `${transposed}`, {
      tensors: () => [
        wide(3, rows),
        ...given(),
        wide(4, rows, vocab),
        argument(new Float32Array(rows).fill(5)),
        wide(0, rows, width),
        wide(0, width * vocab),
      ],
      numbers: [rows, width, vocab, transposed, 1],
      results: [6, 7],
      // The derivative by a logit is rounded before the products.
      tolerance: { relative: 2 ** -7, absolute: 1e-4 },
    });
  });
});

describeEngine('tensors that products read', () => {
  beforeAll(async () => {
    await registerNativeBackend({ precision: 'bf16' });
    await tf.setBackend('native');
  });
  afterAll(() => registerNativeBackend());

  const expected = (x: Float32Array): number[] => [...widened(narrowed(x))];
  /** A tensor in bfloat16: x times 1. */
  const kept = (x: Float32Array) => {
    const inputs = { a: tf.tensor2d(x, [x.length, 1]), b: tf.ones([1, 1]) };
    const attributes = { transposeA: false, transposeB: false, rounded: true };
    return tf.engine().runKernel<tf.Tensor>('LlmxFusedMatmul', inputs, attributes);
  };
  const x = values(100, 1);

  test('take half the memory, and are float32 to whoever reads them', () => {
    const { memoryPool } = nativeBackend();
    const before = memoryPool.usedBytes;
    tf.tidy(() => {
      const y = kept(x);
      // x and the factor beside them.
      expect(memoryPool.usedBytes - before).toBe(448 + 64 + 256);
      expect([...y.dataSync()]).toEqual(expected(x));
      expect(memoryPool.usedBytes - before).toBe(448 + 64 + 448);
      expect([...y.dataSync()]).toEqual(expected(x));
    });
    expect(memoryPool.usedBytes).toBe(before);
  });

  test('are widened for kernels that know float32 alone, and shared as they are', () => {
    tf.tidy(() => {
      const y = kept(x);
      const [reshaped, cloned] = [tf.reshape(y, [10, 10]), tf.clone(y)];
      const rounded = expected(x);
      expect([...tf.add(y, y).dataSync()]).toEqual(rounded.map((value) => 2 * value));
      // Kernels in C++ that take float32 alone, each of a tensor that nothing has widened yet.
      expect([...tf.slice(kept(x), [10, 0], [5, 1]).dataSync()]).toEqual(rounded.slice(10, 15));
      expect(tf.max(kept(x)).dataSync()[0]).toBe(Math.max(...rounded));
      // A kernel of tfjs-backend-cpu.
      expect([...tf.reverse(kept(x), 0).dataSync()]).toEqual(rounded.toReversed());
      expect([...reshaped.dataSync()]).toEqual(rounded);
      expect([...cloned.dataSync()]).toEqual(rounded);
    });
  });

  test('outlive a change of precision', async () => {
    const y = kept(x);
    await registerNativeBackend();
    expect([...tf.tidy(() => tf.mul(y, 2)).dataSync()]).toEqual(expected(x).map((value) => 2 * value));
    await registerNativeBackend({ precision: 'bf16' });
    y.dispose();
  });

  test('one as both operands, in bfloat16 and not', () => {
    tf.tidy(() => {
      const y = kept(Float32Array.of(1, 2, 3));
      expect([...tf.matMul(y, y, true, false).dataSync()]).toEqual([14]);
      expect([...tf.mul(y, y).dataSync()]).toEqual([1, 4, 9]);
    });
  });

  test('gradients of weights are such; what is summed of several is float32', () => {
    const [weight, up, down] = [tf.randomNormal([8, 8]), tf.randomNormal([8, 16]), tf.randomNormal([16, 8])];
    const inputs = tf.randomNormal([20, 8]);
    const once = (h: tf.Tensor) => geluFeedForward(linear(h, weight), { weight: up }, { weight: down });
    const isRounded = (gradient: tf.Tensor): boolean => {
      const read = gradient.dataSync() as Float32Array;
      return read.every((value, index) => value === expected(read)[index]);
    };
    const roundedOf = (f: () => tf.Tensor): boolean[] => {
      const { value, grads } = differentiate(() => ({ result: f() }), [weight, up, down]);
      const found = grads.map(isRounded);
      tf.dispose([value.result, grads]);
      return found;
    };
    expect(roundedOf(() => tf.sum(tf.square(once(inputs))))).toEqual([true, true, true]);
    expect(roundedOf(() => tf.sum(tf.square(once(once(inputs)))))).toEqual([false, false, false]);
    tf.dispose([weight, up, down, inputs]);
  });

  test('results of norms and attention are such', () => {
    const engine = nativeBackend();
    const rows = tf.tensor4d(values(2 * 8 * 2 * 4, 2), [2, 8, 2, 4]);
    const norm = { x: tf.reshape(rows, [16, 8]), weight: tf.ones([8]) };
    const operands = { a: norm.x, b: norm.x };
    const qkv = { query: rows, key: rows, value: rows };
    const infos = [
      ...attentionKernels['LlmxAttention']!(engine, qkv, { scale: 0.5 }),
      ...normKernels['LlmxNorm']!(engine, norm, { epsilon: 1e-5, center: true, rounded: true }),
      ...normKernels['LlmxNorm']!(engine, norm, { epsilon: 1e-5, center: true }),
      ...matmulKernels['LlmxFusedMatmul']!(engine, operands, { transposeA: true, transposeB: false }),
    ];
    const isRounded = ({ dataId }: (typeof infos)[number]): boolean => {
      const read = engine.readSync(dataId) as Float32Array;
      return read.every((value, index) => value === expected(read)[index]);
    };
    const [attended, , normed, , , plain, , , product] = infos.map(isRounded);
    expect({ attended, normed, plain, product }).toEqual({
      attended: true,
      normed: true,
      plain: false,
      product: false,
    });
    for (const { dataId } of infos) engine.disposeData(dataId);
    tf.dispose([rows, norm]);
  });
});
