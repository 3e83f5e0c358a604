import { tf } from '@llmx/core';

import { requireShape } from '../check.ts';
import type { NativeKernel } from '../engine.ts';
import { fallback } from '../fallback.ts';
import { sizeOf } from './elementwise.ts';

/** As numbered in native/kernels/reduce.cpp. */
const REDUCTIONS = { Sum: 0, Mean: 0, Max: 1, Min: 2 } as const;
type Name = keyof typeof REDUCTIONS;

/**
 * The shape as [outer, count, inner] with the middle reduced; undefined where the axes do not lie side by side.
 */
export function aroundAxes(shape: readonly number[], axes: readonly number[]): [number, number, number] | undefined {
  const sorted = axes.toSorted((a, b) => a - b);
  const first = sorted[0] ?? shape.length;
  if (sorted.some((axis, index) => axis !== first + index)) return undefined;
  const end = first + sorted.length;
  return [sizeOf(shape.slice(0, first)), sizeOf(shape.slice(first, end)), sizeOf(shape.slice(end))];
}

function reduction(name: Name): NativeKernel {
  return (engine, inputs, attributes) => {
    const x = inputs['x']!;
    const { axis, reductionIndices, keepDims } = attributes as {
      axis?: number | number[];
      reductionIndices?: number | number[];
      keepDims?: boolean;
    };
    const axes = tf.util.parseAxisParam((axis ?? reductionIndices)!, x.shape);
    const view = aroundAxes(x.shape, axes);
    if (x.dtype !== 'float32' || sizeOf(x.shape) === 0 || view === undefined)
      return fallback(name)(engine, inputs, attributes);
    const [rest] = tf.backend_util.computeOutAndReduceShapes(x.shape, axes);
    const y = engine.allocate(keepDims === true ? tf.backend_util.expandShapeToKeepDim(rest, axes) : rest);
    engine.run('LlmxReduce', [x, y], [REDUCTIONS[name], ...view, name === 'Mean' ? 1 / view[1] : 1]);
    return [y];
  };
}

/** Sums over the rows of `x` [rows, columns], as [columns]. */
const columnSums: NativeKernel = (engine, inputs) => {
  const x = requireShape('LlmxColumnSums', 'x', inputs['x'], [undefined, undefined]);
  const [rows, columns] = x.shape as [number, number];
  const y = engine.allocate([columns]);
  if (rows === 0) engine.run('LlmxFill', [y], [0]);
  else if (columns > 0) engine.run('LlmxReduce', [x, y], [REDUCTIONS.Sum, 1, rows, columns, 1], [0]);
  return [y];
};

/** The sum of the squares of `x`, float32 of any shape, as a scalar. */
const sumOfSquares: NativeKernel = (engine, inputs) => {
  const x = requireShape('LlmxSumOfSquares', 'x', inputs['x'], inputs['x']?.shape ?? []);
  const y = engine.allocate([]);
  engine.run('LlmxSumOfSquares', [x, y], [], [0]);
  return [y];
};

export const reduceKernels: Readonly<Record<string, NativeKernel>> = {
  Sum: reduction('Sum'),
  Mean: reduction('Mean'),
  Max: reduction('Max'),
  Min: reduction('Min'),
  LlmxColumnSums: columnSums,
  LlmxSumOfSquares: sumOfSquares,
};
