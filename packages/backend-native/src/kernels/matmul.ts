import { tf } from '@llmx/core';

import { requireShape } from '../check.ts';
import type { Engine, NativeKernel, TensorInfo } from '../engine.ts';
import { fallback } from '../fallback.ts';

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** As native/kernels/matmul.h numbers them, from 1. */
const ACTIVATIONS = ['gelu', 'gelu-backward'] as const;
type Activation = (typeof ACTIVATIONS)[number];

/** A batch of products and what is done to them on their way to memory; see native/kernels/matmul.cpp. */
interface Product {
  readonly a: TensorInfo;
  readonly b: TensorInfo;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly bias?: TensorInfo | undefined;
  readonly residual?: TensorInfo | undefined;
  readonly factor?: TensorInfo | undefined;
  readonly activation?: Activation | undefined;
}

/** Lengths of a product: [rows of a, columns of b, length of the sums]; transposed operands are stored the other way round. */
function lengthsOf({ a, b, transposeA, transposeB }: Product): [number, number, number] {
  const [first, second] = a.shape.slice(-2) as [number, number];
  const n = b.shape.at(transposeB ? -2 : -1)!;
  return transposeA ? [second, n, first] : [first, n, second];
}

/** Positions among LlmxMatmul's tensors of those that may be bfloat16: operands, factor and results. */
const MAY_BE_NARROW = [0, 1, 4, 5, 6];

function multiply(engine: Engine, product: Product, output: TensorInfo, second?: TensorInfo): void {
  const { a, b, bias, residual, factor, activation, transposeA, transposeB } = product;
  const [batchesOfA, batchesOfB] = [sizeOf(a.shape.slice(0, -2)), sizeOf(b.shape.slice(0, -2))];
  const batches = sizeOf(output.shape.slice(0, -2));
  const flags = [transposeA, transposeB, batchesOfA < batches, batchesOfB < batches];
  const activationNumber = activation === undefined ? 0 : 1 + ACTIVATIONS.indexOf(activation);
  engine.run(
    'LlmxMatmul',
    [a, b, bias, residual, factor, output, second],
    [batches, ...lengthsOf(product), ...flags.map(Number), activationNumber, Number(engine.roundsProducts)],
    MAY_BE_NARROW,
  );
}

/** Whether the residual's memory can take the result: nobody else refers to it, and it is not read as something else. */
const canOverwrite = (engine: Engine, { a, b, factor, residual }: Product): boolean =>
  residual !== undefined &&
  ![a, b, factor].some((other) => other?.dataId === residual.dataId) &&
  engine.isSoleOwner(residual);

/**
 * `a` [..., m, k] times `b` [..., k, n], leading axes equal, the last two transposed as the attributes say; then `bias` [n] is
 * added, the activation taken, `factor` multiplied and `residual` added, where given. Results: the product [..., m, n], and with
 * an activation and the attribute `second` also what GELU was taken of (`gelu`), or GELU of the factor (`gelu-backward`, which
 * multiplies by its derivative there). With the attribute `accumulate` the residual is given up: the product takes its memory
 * where nobody else refers to that. With the attribute `rounded` results are for products alone: see `allocateRounded`.
 */
const matmul: NativeKernel = (engine, inputs, attributes) => {
  const { transposeA, transposeB, activation, second, accumulate, rounded } = attributes as {
    transposeA: boolean;
    transposeB: boolean;
    activation?: Activation;
    second?: boolean;
    accumulate?: boolean;
    rounded?: boolean;
  };
  const need = (name: string, shape: readonly (number | undefined)[]): TensorInfo =>
    requireShape('LlmxMatmul', name, inputs[name], shape);
  const optional = (name: string, shape: readonly number[]): TensorInfo | undefined =>
    inputs[name] && need(name, shape);

  const leading = inputs['a']?.shape.slice(0, -2) ?? [];
  const a = need('a', [...leading, undefined, undefined]);
  const k = a.shape.at(transposeA ? -2 : -1)!;
  const b = need('b', [...leading, ...(transposeB ? [undefined, k] : [k, undefined])]);
  const operands = { a, b, transposeA, transposeB, activation };
  const [m, n] = lengthsOf(operands);
  const shape = [...leading, m, n];
  const [residual, factor] = [optional('residual', shape), optional('factor', shape)];
  const product: Product = { ...operands, bias: optional('bias', [n]), residual, factor };

  const isInPlace = accumulate === true && canOverwrite(engine, product);
  const allocate = () => (rounded === true ? engine.allocateRounded(shape) : engine.allocate(shape));
  const output = isInPlace ? engine.share(residual!) : allocate();
  const other = activation !== undefined && second === true ? allocate() : undefined;
  multiply(engine, product, output, other);
  return other === undefined ? [output] : [output, other];
};

/** The product's shape where the C++ kernel can form it: float32, one operand per product or one for all. */
function batchedShape(a: TensorInfo, b: TensorInfo, transposeA: boolean, transposeB: boolean): number[] | undefined {
  if (a.dtype !== 'float32' || b.dtype !== 'float32') return undefined;
  const [ofA, ofB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const leading = tf.backend_util.assertAndGetBroadcastShape(ofA, ofB);
  const isOneOrAll = [ofA, ofB].every((shape) => sizeOf(shape) === 1 || sizeOf(shape) === sizeOf(leading));
  const [m, n, k] = lengthsOf({ a, b, transposeA, transposeB });
  const fits = b.shape.at(transposeB ? -1 : -2) === k;
  return isOneOrAll && fits ? [...leading, m, n] : undefined;
}

/** TensorFlow.js's `BatchMatMul`. */
const batchMatMul: NativeKernel = (engine, inputs, attributes) => {
  const { transposeA, transposeB } = attributes as { transposeA: boolean; transposeB: boolean };
  const { a, b } = inputs as { a: TensorInfo; b: TensorInfo };
  const shape = batchedShape(a, b, transposeA, transposeB);
  if (shape === undefined) return fallback('BatchMatMul')(engine, inputs, attributes);
  const output = engine.allocate(shape);
  multiply(engine, { a, b, transposeA, transposeB }, output);
  return [output];
};

/** TensorFlow.js's `_FusedMatMul`: natively with a bias per column and no activation. */
const fusedMatMul: NativeKernel = (engine, inputs, attributes) => {
  const { transposeA, transposeB, activation } = attributes as tf.NamedAttrMap & {
    transposeA: boolean;
    transposeB: boolean;
    activation?: string;
  };
  const { a, b, bias } = inputs as { a: TensorInfo; b: TensorInfo; bias?: TensorInfo };
  const shape = batchedShape(a, b, transposeA, transposeB);
  const isPlain = activation === undefined || activation === 'linear';
  const isPerColumn =
    bias === undefined || (sizeOf(bias.shape) === shape?.at(-1) && bias.shape.at(-1) === shape.at(-1));
  if (shape === undefined || !isPlain || !isPerColumn || (bias !== undefined && bias.dtype !== 'float32'))
    return fallback('_FusedMatMul')(engine, inputs, attributes);
  const output = engine.allocate(shape);
  multiply(engine, { a, b, transposeA, transposeB, bias }, output);
  return [output];
};

export const matmulKernels: Readonly<Record<string, NativeKernel>> = {
  LlmxMatmul: matmul,
  LlmxFusedMatmul: matmul,
  BatchMatMul: batchMatMul,
  _FusedMatMul: fusedMatMul,
};
