import { tf } from '@llmx/core';
import { beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectClose, expectLikeReference, values } from '../testing/compare.ts';
import { type Argument, argument, available, describeEngine, runKernel } from '../testing/kernels.ts';
import { expectLikeCpu, read, tensor } from '../testing/like-cpu.ts';
import { matmulKernels } from './matmul.ts';

interface Product {
  readonly batches?: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** One operand for the whole batch. */
  readonly one?: 'a' | 'b';
  /** Bits: transposeA, transposeB, bias, residual, factor, activation (its backward pass with factor and transposeA), second result, in place, bfloat16. */
  readonly variant: number;
}

/** Holds all forms of the C++ kernel against its reference. */
function check({ batches = 1, m, n, k, one, variant }: Product, edit?: (tensors: Argument[]) => void): void {
  const has = (bit: number): boolean => (variant & (1 << bit)) !== 0;
  const filled = (seed: number, size: number): Argument => argument(values(size, seed, -1, 1));
  const size = batches * m * n;
  const tensors = (): Argument[] => {
    const residual = has(3) ? filled(4, size) : undefined;
    const given = [
      filled(1, (one === 'a' ? 1 : batches) * m * k),
      filled(2, (one === 'b' ? 1 : batches) * k * n),
      has(2) ? filled(3, n) : undefined,
      residual,
      has(4) ? filled(5, size) : undefined,
      (has(7) ? residual : undefined) ?? argument(new Float32Array(size).fill(NaN)),
      has(5) && has(6) ? argument(new Float32Array(size).fill(NaN)) : undefined,
    ];
    edit?.(given);
    return given;
  };
  expectLikeReference('LlmxMatmul', `${batches}x${m}x${n}x${k} ${one ?? ''} ${variant}`, {
    tensors,
    numbers: [
      batches,
      m,
      n,
      k,
      +has(0),
      +has(1),
      +(one === 'a'),
      +(one === 'b'),
      has(5) ? (has(4) && has(0) ? 2 : 1) : 0,
      +has(8),
    ],
    results: has(5) && has(6) ? [5, 6] : [5],
    tolerance: { relative: 1e-5, absolute: 3e-6 * (1 + Math.sqrt(k)) },
  });
}

/** Another combination of transposes and epilogue for each call. */
let turn = 0;
const nextVariant = (): number => (turn = (turn + 333) % 512);

// Around the tiles' lengths: 4, 6 and 8 rows; 8, 16 and 48 columns.
const SIZES = [0, 1, 3, 4, 7, 8, 9, 16, 17, 33, 48, 49, 97] as const;

describeEngine('products of matrices', () => {
  test.each(SIZES)('%i rows', (m) => {
    for (const n of SIZES) for (const k of [0, 1, 5, 16, 33]) check({ m, n, k, variant: nextVariant() });
  });

  test('every combination of transposes and epilogue', () => {
    for (let variant = 0; variant < 512; variant++) check({ m: 13, n: 50, k: 20, variant });
  });

  test.each([
    // Sums of one and more blocks, shared by rows and by columns.
    { m: 150, n: 120, k: 300 },
    { m: 120, n: 150, k: 300 },
    { m: 101, n: 60, k: 1700 },
    { m: 60, n: 101, k: 1700 },
    { m: 4, n: 350, k: 800 },
    // Several groups of packed blocks.
    { m: 60, n: 64, k: 20_000 },
    { m: 64, n: 60, k: 20_000 },
  ])('$m x $n x $k', (sizes) => {
    const isLong = sizes.k > 10_000;
    for (let count = 0; count < (isLong ? 1 : 4); count++) check({ ...sizes, variant: nextVariant() });
    // The residual in place while the sum is formed in blocks.
    if (!isLong) for (const variant of [0b10001000, 0b110001000]) check({ ...sizes, variant });
  });

  test('with vectors', () => {
    const sizes = [
      [1, 0],
      [1, 1],
      [2, 33],
      [63, 31],
      [65, 8],
      [3000, 17],
      [130, 700],
    ] as const;
    for (const [size, k] of sizes)
      for (const variant of [0, 1, 2, 3, 0b01111100, 0b10001111, 0b100000000, 0b100000011]) {
        check({ m: 1, n: size, k, variant });
        check({ m: size, n: 1, k, variant });
      }
  });

  test.each([97, 96])('no sum depends on where it lies, of %i rows', (large) => {
    // Rows of a stay where they are if there are 96.
    const [small, k] = [45, 800];
    const [a, b] = [values(large * k, 1, -1, 1), values(large * k, 2, -1, 1)];
    for (const instructionSet of available)
      for (const bfloat16 of [0, 1]) {
        const product = (size: number): Float32Array => {
          const result = new Float32Array(size * size);
          const operands = [a, b].map((operand) => argument(operand.slice(0, size * k)));
          const tensors = [...operands, undefined, undefined, undefined, argument(result), undefined];
          runKernel('LlmxMatmul', tensors, [1, size, size, k, 0, 1, 0, 0, 0, bfloat16], { instructionSet });
          return result;
        };
        const whole = product(large);
        const corner = product(small).map((_, at) => whole[Math.floor(at / small) * large + (at % small)]!);
        expect(product(small), `${instructionSet} ${bfloat16}`).toEqual(corner);
      }
  });

  test('batches', () => {
    for (const one of [undefined, 'a', 'b'] as const) {
      for (let count = 0; count < 6; count++) {
        check({ batches: 3, m: 9, n: 20, k: 7, ...(one && { one }), variant: nextVariant() });
        check({ batches: 200, m: 3, n: 5, k: 2, ...(one && { one }), variant: nextVariant() });
      }
      check({ batches: 20, m: 65, n: 33, k: 40, ...(one && { one }), variant: nextVariant() });
      check({ batches: 2, m: 130, n: 140, k: 150, ...(one && { one }), variant: nextVariant() });
    }
  });

  test('NaN and infinity reach what they belong to and nothing else', () => {
    for (const variant of [0, 1, 2, 0b01100100, 0b100000000])
      check({ m: 19, n: 35, k: 21, variant }, ([a, b]) => {
        a!.values[25] = NaN;
        b!.values[40] = Infinity;
        b!.values[41] = -Infinity;
      });
  });

  test('GELU far from 0', () => {
    check({ m: 1, n: 16, k: 1, variant: 0b01100000 }, ([a, b]) => {
      a!.values[0] = 1;
      b!.values.set([-Infinity, Infinity, NaN, 0, -0, 40, -40, 12, -12, 5, -5, 1e-30, -1e-30, 3e38, -3e38, 0.5]);
    });
  });
});

describeEngine('products as kernels', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  const filled = (seed: number, ...shape: number[]) =>
    tensor(
      values(
        shape.reduce((product, length) => product * length, 1),
        seed,
      ),
      ...shape,
    );
  const run = (name: string, inputs: Parameters<(typeof matmulKernels)[string]>[1], attributes: object) =>
    matmulKernels[name]!(nativeBackend(), inputs, attributes as Record<string, unknown>);

  test('BatchMatMul gives what the cpu backend gives', () => {
    const shapes = [
      [
        [2, 3, 4],
        [2, 4, 5],
      ],
      [
        [1, 3, 4],
        [6, 4, 5],
      ],
      [
        [6, 3, 4],
        [1, 4, 5],
      ],
      [
        [2, 3, 4, 5],
        [2, 3, 5, 6],
      ],
      [
        [1, 1, 4],
        [1, 4, 5],
      ],
    ] as const;
    for (const [a, b] of shapes)
      for (const transposeA of [false, true])
        for (const transposeB of [false, true]) {
          const stored = (shape: readonly number[], isTransposed: boolean): number[] =>
            isTransposed ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : [...shape];
          const inputs = { a: filled(1, ...stored(a, transposeA)), b: filled(2, ...stored(b, transposeB)) };
          expectLikeCpu('BatchMatMul', matmulKernels, inputs, { transposeA, transposeB }, { absolute: 1e-5 });
        }
  });

  test('_FusedMatMul gives what the cpu backend gives, also with activations that are left to it', () => {
    const inputs = { a: filled(1, 1, 4, 5), b: filled(2, 1, 5, 6), bias: filled(3, 6) };
    for (const activation of ['linear', 'relu', 'elu'])
      expectLikeCpu(
        '_FusedMatMul',
        matmulKernels,
        inputs,
        { transposeA: false, transposeB: false, activation },
        { absolute: 1e-5 },
      );
  });

  test('GELU gives what it was taken of as a second result, and its backward pass GELU of that', () => {
    const inputs = { a: filled(1, 4, 5), b: filled(2, 5, 6), bias: filled(3, 6) };
    const plain = { transposeA: false, transposeB: false };
    const [linear] = run('LlmxMatmul', inputs, plain);
    const [hidden, before] = run('LlmxFusedMatmul', inputs, { ...plain, activation: 'gelu', second: true });
    const single = run('LlmxFusedMatmul', inputs, { ...plain, activation: 'gelu' });
    expect(single).toHaveLength(1);
    expect(read(single[0]!)).toEqual(read(hidden!));
    expect(read(before!)).toEqual(read(linear!));
    const backward = { ...plain, activation: 'gelu-backward', second: true };
    const [gradient, again] = run('LlmxFusedMatmul', { ...inputs, factor: before! }, backward);
    expect(read(again!)).toEqual(read(hidden!));
    const gelu = (x: number): number => read(tf.mul(x / 2, tf.add(1, tf.erf(x * Math.SQRT1_2))))[0]!;
    const slopes = Array.from(read(linear!), (x) => x * (gelu(x + 1 / 64) - gelu(x - 1 / 64)) * 32);
    expectClose(read(gradient!), slopes, { absolute: 1e-3 });
  });

  test('accumulating takes the memory of a residual that nobody else refers to', () => {
    const engine = nativeBackend();
    const options = { transposeA: true, transposeB: false, accumulate: true };
    const [a, b] = [filled(1, 5, 4), filled(2, 5, 6)];
    const [expected] = run('LlmxMatmul', { a, b, residual: filled(3, 4, 6) }, { ...options, accumulate: false });
    const [free, shared] = [filled(3, 4, 6), filled(3, 4, 6)];
    engine.share(shared);
    const [inPlace] = run('LlmxMatmul', { a, b, residual: free }, options);
    const [elsewhere] = run('LlmxMatmul', { a, b, residual: shared }, options);
    expect(inPlace!.dataId).toBe(free.dataId);
    expect(elsewhere!.dataId).not.toBe(shared.dataId);
    for (const result of [inPlace!, elsewhere!]) expect(read(result)).toEqual(read(expected!));
    expect(read(shared)).toEqual(values(24, 3));
  });

  test('a residual that is an operand too is left alone', () => {
    const a = filled(1, 4, 4);
    const options = { transposeA: false, transposeB: false, accumulate: true };
    const [product] = run('LlmxMatmul', { a, b: filled(2, 4, 4), residual: a }, options);
    expect(product!.dataId).not.toBe(a.dataId);
    expect(read(a)).toEqual(values(16, 1));
  });

  test('shapes that do not fit are refused', () => {
    const options = { transposeA: false, transposeB: true };
    const a = filled(1, 2, 4, 5);
    expect(() => run('LlmxMatmul', { a, b: filled(2, 2, 5, 6) }, options)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: LlmxMatmul needs b as float32 [2, any, 5], got float32 [2, 5, 6].]`,
    );
    expect(() => run('LlmxMatmul', { a, b: filled(2, 3, 6, 5) }, options)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: LlmxMatmul needs b as float32 [2, any, 5], got float32 [3, 6, 5].]`,
    );
    expect(() =>
      run('LlmxMatmul', { a, b: filled(2, 2, 6, 5), bias: filled(3, 4) }, options),
    ).toThrowErrorMatchingInlineSnapshot(`[LlmxError: LlmxMatmul needs bias as float32 [6], got float32 [4].]`);
    expect(() => run('LlmxMatmul', { a: filled(1, 5), b: a }, options)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: LlmxMatmul needs a as float32 [any, any], got float32 [5].]`,
    );
  });
});
