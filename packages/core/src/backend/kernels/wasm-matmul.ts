/**
 * Products on the wasm backend. Its own kernel is fast (XNNPACK) for a plain product of two matrices only: a transposed
 * argument costs 10 to 20 times as much and a batch 8 times. So this one copies each matrix of the batch into place,
 * transposed where needed, and runs the plain product on it.
 */
import { assert } from '../../errors/index.ts';
import { tf } from '../../tensor/index.ts';
import { floats, type Kernel, type Storage, type TensorInfo } from './storage.ts';

// A 32 x 32 tile of float32 is 4 KiB: source and target tiles stay in the first-level cache together.
const TILE = 32;

/** Writes the transpose of the matrix at `from` [rows, columns] to `to` [columns, rows]. */
function transposeInto(to: Float32Array, from: Float32Array, offset: number, rows: number, columns: number): void {
  for (let top = 0; top < rows; top += TILE)
    for (let left = 0; left < columns; left += TILE) {
      const [bottom, right] = [Math.min(rows, top + TILE), Math.min(columns, left + TILE)];
      for (let row = top; row < bottom; row++)
        for (let column = left; column < right; column++)
          to[column * rows + row] = from[offset + row * columns + column]!;
    }
}

/** The matrices of one argument, as plain [rows, columns] tensors one after another. */
interface Argument {
  readonly info: TensorInfo;
  readonly transposed: boolean;
  readonly rows: number;
  readonly columns: number;
}

function argument(info: TensorInfo, transposed: boolean): Argument {
  const [first, second] = info.shape.slice(-2) as [number, number];
  return transposed
    ? { info, transposed, rows: second, columns: first }
    : { info, transposed, rows: first, columns: second };
}

/** Copies matrix `index` of the argument into `target`, [rows, columns]. */
function load(
  storage: Storage,
  target: TensorInfo,
  { info, transposed, rows, columns }: Argument,
  index: number,
): void {
  const [to, from] = [floats(storage, target), floats(storage, info)];
  const offset = index * rows * columns;
  if (transposed) transposeInto(to, from, offset, columns, rows);
  else to.set(from.subarray(offset, offset + rows * columns));
}

const isPlain = ({ info, transposed }: Argument): boolean => info.shape.length === 2 && !transposed;

/** `LlmxMatmul` on wasm: `a` and `b` of equal leading axes, attributes `transposeA` and `transposeB`. */
export const wasmMatmul: Kernel = (storage, inputs, attributes) => {
  const { transposeA, transposeB } = attributes as { transposeA: boolean; transposeB: boolean };
  const [a, b] = [argument(inputs['a']!, transposeA), argument(inputs['b']!, transposeB)];
  assert(a.columns === b.rows, `Cannot multiply [${a.info.shape.join(', ')}] by [${b.info.shape.join(', ')}].`);
  const batches = a.info.shape.slice(0, -2).reduce((product, length) => product * length, 1);
  const shape = [...a.info.shape.slice(0, -2), a.rows, b.columns];
  if (isPlain(a) && isPlain(b)) return [product(a.info, b.info)];

  const output = batches === 1 ? undefined : storage.allocate(shape);
  for (let index = 0; index < batches; index++) {
    // The right-hand matrix is a new tensor each time: XNNPACK packs it once per tensor and would use the old one.
    const parts = [a, b].map((side) => (isPlain(side) ? side.info : storage.allocate([side.rows, side.columns])));
    const [left, right] = parts as [TensorInfo, TensorInfo];
    if (left !== a.info) load(storage, left, a, index);
    if (right !== b.info) load(storage, right, b, index);
    const result = product(left, right);
    for (const part of parts) if (part !== a.info && part !== b.info) tf.backend().disposeData(part.dataId);
    if (output === undefined) return [{ ...result, shape }];
    floats(storage, output).set(floats(storage, result), index * a.rows * b.columns);
    tf.backend().disposeData(result.dataId);
  }
  assert(output !== undefined, 'A product of no matrices.');
  return [output];
};

/** `LlmxLinear` on wasm: rows times weight plus bias in one pass. */
export const wasmLinear: Kernel = (_storage, { x, weight, bias }) => {
  // This kernel of the backend takes batches only.
  const batched = (info: TensorInfo): TensorInfo => ({ ...info, shape: [1, ...info.shape] });
  return [runPlain('_FusedMatMul', { a: batched(x!), b: batched(weight!), bias: bias! }, { activation: 'linear' })];
};

/** The backend's own product of two plain matrices. */
const product = (a: TensorInfo, b: TensorInfo): TensorInfo => runPlain('BatchMatMul', { a, b }, {});

function runPlain(name: string, inputs: Record<string, TensorInfo>, attributes: Record<string, string>): TensorInfo {
  const kernel = tf.getKernel(name, 'wasm');
  assert(kernel !== undefined, `The wasm backend has no kernel ${name}.`);
  const attrs = { transposeA: false, transposeB: false, ...attributes };
  const result = kernel.kernelFunc({ inputs, attrs, backend: tf.backend() });
  const info = result as TensorInfo;
  return { ...info, shape: info.shape.slice(-2) };
}
