/** Kernels that move or convert elements, fill memory, or add up in place. */
import { compile, expr, type Expression, tf } from '@llmx/core';

import { requireShape } from '../check.ts';
import type { Engine, NativeKernel, TensorInfo } from '../engine.ts';
import { fallback } from '../fallback.ts';
import { runProgram, sizeOf } from './elementwise.ts';

type Plain = 'float32' | 'int32';
const isPlain = (dtype: unknown): dtype is Plain => dtype === 'float32' || dtype === 'int32';

/** One axis of a copy: its length, and the distance of neighbours in the source and in the target. */
interface Axis {
  readonly length: number;
  readonly from: number;
  readonly to: number;
}

/** The same copy with as few axes as possible, one at least. */
export function joined(axes: readonly Axis[]): Axis[] {
  const result: Axis[] = [];
  for (const axis of axes.filter(({ length }) => length !== 1)) {
    const outer = result.at(-1);
    if (outer !== undefined && outer.from === axis.from * axis.length && outer.to === axis.to * axis.length)
      result[result.length - 1] = { ...axis, length: outer.length * axis.length };
    else result.push(axis);
  }
  return result.length > 0 ? result : [{ length: 1, from: 1, to: 1 }];
}

/** Distances of neighbours along each axis of a dense tensor. */
const stridesOf = (shape: readonly number[]): number[] => shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));

/** Copies elements of `x`, from one offset on, to `y`, from another on. */
function copy(
  engine: Engine,
  x: TensorInfo,
  y: TensorInfo,
  axes: readonly Axis[],
  offsets: readonly [number, number],
): void {
  if (axes.some(({ length }) => length === 0)) return;
  const flat = joined(axes);
  const numbers = flat.flatMap(({ length, from, to }) => [length, from, to]);
  engine.run('LlmxCopy', [x, y], [...offsets, flat.length, ...numbers]);
}

const isDense = ([axis, ...others]: readonly Axis[]): boolean =>
  others.length === 0 && axis!.from === 1 && axis!.to === 1;

const transpose: NativeKernel = (engine, inputs, attributes) => {
  const x = inputs['x']!;
  const { perm } = attributes as { perm: number[] };
  if (!isPlain(x.dtype)) return fallback('Transpose')(engine, inputs, attributes);
  const shape = perm.map((axis) => x.shape[axis]!);
  const [from, to] = [stridesOf(x.shape), stridesOf(shape)];
  const axes = perm.map((axis, position) => ({ length: shape[position]!, from: from[axis]!, to: to[position]! }));
  if (isDense(joined(axes))) return [engine.share(x, shape)];
  const y = engine.allocate(shape, x.dtype);
  copy(engine, x, y, axes, [0, 0]);
  return [y];
};

/** A copy of the block of `size` elements along each axis from `begin` on. */
function block(engine: Engine, x: TensorInfo, begin: readonly number[], size: readonly number[]): TensorInfo {
  const [from, to] = [stridesOf(x.shape), stridesOf(size)];
  const y = engine.allocate(size, x.dtype as Plain);
  const axes = size.map((length, axis) => ({ length, from: from[axis]!, to: to[axis]! }));
  copy(engine, x, y, axes, [begin.reduce((offset, position, axis) => offset + position * from[axis]!, 0), 0]);
  return y;
}

const slice: NativeKernel = (engine, inputs, attributes) => {
  const x = inputs['x']!;
  if (!isPlain(x.dtype)) return fallback('Slice')(engine, inputs, attributes);
  const given = attributes as { begin: number | number[]; size: number | number[] };
  const [begin, size] = tf.slice_util.parseSliceParams(x, given.begin, given.size) as [number[], number[]];
  tf.slice_util.assertParamsValid(x, begin, size);
  return [block(engine, x, begin, size)];
};

/** Also the gradient of Concat. */
const splitV: NativeKernel = (engine, inputs, attributes) => {
  const x = inputs['x']!;
  if (!isPlain(x.dtype)) return fallback('SplitV')(engine, inputs, attributes);
  const given = attributes as { numOrSizeSplits: number | number[]; axis: number };
  const axis = tf.util.parseAxisParam(given.axis, x.shape)[0]!;
  let start = 0;
  return tf.backend_util.prepareSplitSize(x as tf.Tensor, given.numOrSizeSplits, axis).map((length) => {
    const begin = x.shape.map((_, index) => (index === axis ? start : 0));
    start += length;
    return block(engine, x, begin, x.shape.with(axis, length));
  });
};

const concat: NativeKernel = (engine, inputs, attributes) => {
  const given = Object.values(inputs) as TensorInfo[];
  const dtype = given[0]!.dtype;
  if (!isPlain(dtype) || given.some((info) => info.dtype !== dtype))
    return fallback('Concat')(engine, inputs, attributes);
  const axis = tf.util.parseAxisParam(attributes['axis'] as number, given[0]!.shape)[0]!;
  const shapes = given.map((info) => info.shape);
  tf.backend_util.assertParamsConsistent(shapes, axis);
  const shape = tf.backend_util.computeOutShape(shapes, axis);
  const y = engine.allocate(shape, dtype);
  const [outer, to] = [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis))];
  let offset = 0;
  for (const x of given) {
    const length = sizeOf(x.shape.slice(axis));
    const axes = [
      { length: outer, from: length, to },
      { length, from: 1, to: 1 },
    ];
    copy(engine, x, y, axes, [0, offset]);
    offset += length;
  }
  return [y];
};

const cast: NativeKernel = (engine, inputs, attributes) => {
  const x = inputs['x']!;
  const { dtype } = attributes as { dtype: tf.DataType };
  if (!isPlain(x.dtype) || !isPlain(dtype)) return fallback('Cast')(engine, inputs, attributes);
  if (x.dtype === dtype) return [engine.share(x)];
  const y = engine.allocate(x.shape, dtype);
  engine.run('LlmxCast', [x, y]);
  return [y];
};

function filled(engine: Engine, shape: readonly number[], dtype: Plain, value: number): TensorInfo[] {
  const y = engine.allocate(shape, dtype);
  engine.run('LlmxFill', [y], [value]);
  return [y];
}

const fill: NativeKernel = (engine, inputs, attributes) => {
  const { shape, value, dtype } = attributes as { shape: number[]; value: number | string; dtype?: tf.DataType };
  const type = dtype ?? tf.util.inferDtype(value);
  if (typeof value !== 'number' || !isPlain(type)) return fallback('Fill')(engine, inputs, attributes);
  return filled(engine, shape, type, value);
};

const like =
  (name: 'ZerosLike' | 'OnesLike', value: number): NativeKernel =>
  (engine, inputs, attributes) => {
    const x = inputs['x']!;
    return isPlain(x.dtype) ? filled(engine, x.shape, x.dtype, value) : fallback(name)(engine, inputs, attributes);
  };

const input = (index: number): Expression => ({ op: 'input', args: [], value: index });
const SUM = compile([expr.add(input(0), input(1))], 2);
const PRODUCT = compile([expr.mul(input(0), input(1))], 2);

/** `sum` + `x`, float32 of one shape, in the memory of `sum` where nobody else refers to it. */
const accumulate: NativeKernel = (engine, inputs) => {
  const shape = inputs['sum']?.shape ?? [];
  const sum = requireShape('LlmxAccumulate', 'sum', inputs['sum'], shape);
  const x = requireShape('LlmxAccumulate', 'x', inputs['x'], shape);
  return runProgram(engine, SUM, [sum, x], shape, { overwrite: [0] });
};

/** `x` * `factor`, a scalar tensor; with the attribute `overwrite`, in the memory of `x` where nobody else refers to it. */
const scale: NativeKernel = (engine, inputs, attributes) => {
  const shape = inputs['x']?.shape ?? [];
  const x = requireShape('LlmxScale', 'x', inputs['x'], shape);
  const factor = requireShape('LlmxScale', 'factor', inputs['factor'], []);
  return runProgram(engine, PRODUCT, [x, factor], shape, {
    overwrite: [attributes['overwrite'] === true ? 0 : undefined],
  });
};

export const layoutKernels: Readonly<Record<string, NativeKernel>> = {
  Transpose: transpose,
  Slice: slice,
  SplitV: splitV,
  Concat: concat,
  Cast: cast,
  Fill: fill,
  ZerosLike: like('ZerosLike', 0),
  OnesLike: like('OnesLike', 1),
  LlmxAccumulate: accumulate,
  LlmxScale: scale,
};
