import { tf } from '@llmx/core';

import { requireShape } from '../check.ts';
import type { NativeKernel } from '../engine.ts';
import { fallback } from '../fallback.ts';
import { sizeOf } from './elementwise.ts';

/** Rows of `weight` [rows, width] at `ids` int32 [count], as [count, width]. */
const embedding: NativeKernel = (engine, inputs) => {
  const weight = requireShape('LlmxEmbedding', 'weight', inputs['weight'], [undefined, undefined]);
  const ids = requireShape('LlmxEmbedding', 'ids', inputs['ids'], [undefined], 'int32');
  const [rows, width] = weight.shape as [number, number];
  const y = engine.allocate([ids.shape[0]!, width]);
  engine.run('LlmxEmbedding', [weight, ids, y], [rows, width, 0]);
  return [y];
};

/**
 * Sums of the rows of `dy` [count, width] by id, as [rows, width]. They are added to `sum` [rows, width] if it is given, in
 * its own memory where nobody else refers to it.
 */
const embeddingGrad: NativeKernel = (engine, inputs, attributes) => {
  const { rows } = attributes as { rows: number };
  const dy = requireShape('LlmxEmbeddingGrad', 'dy', inputs['dy'], [undefined, undefined]);
  const [count, width] = dy.shape as [number, number];
  const ids = requireShape('LlmxEmbeddingGrad', 'ids', inputs['ids'], [count], 'int32');
  const sum = inputs['sum'] && requireShape('LlmxEmbeddingGrad', 'sum', inputs['sum'], [rows, width]);
  const isFree = sum !== undefined && sum.dataId !== dy.dataId && engine.isSoleOwner(sum);
  const dWeight = isFree ? engine.share(sum) : engine.allocate([rows, width]);
  engine.run('LlmxEmbeddingGrad', [dy, ids, sum, dWeight], [rows, width, 0]);
  return [dWeight];
};

/** TensorFlow.js's gather along the first axis. */
const gather: NativeKernel = (engine, inputs, attributes) => {
  const [x, indices] = [inputs['x']!, inputs['indices']!];
  const { axis, batchDims } = attributes as { axis: number; batchDims?: number };
  const { dtype } = x;
  const isPlain = dtype === 'float32' || dtype === 'int32';
  const isFirst = tf.util.parseAxisParam(axis, x.shape)[0] === 0 && (batchDims ?? 0) === 0;
  if (!isPlain || !isFirst || indices.dtype !== 'int32') return fallback('GatherV2')(engine, inputs, attributes);
  const row = x.shape.slice(1);
  const y = engine.allocate([...indices.shape, ...row], dtype);
  engine.run('LlmxEmbedding', [x, indices, y], [x.shape[0]!, sizeOf(row), 1]);
  return [y];
};

/** TensorFlow.js's sums of rows by id; rows whose id is out of range are left out. */
const segmentSum: NativeKernel = (engine, inputs, attributes) => {
  const [x, ids] = [inputs['x']!, inputs['segmentIds']!];
  const { numSegments } = attributes as { numSegments: number };
  if (x.dtype !== 'float32' || ids.dtype !== 'int32' || ids.shape.length !== 1 || ids.shape[0] !== x.shape[0])
    return fallback('UnsortedSegmentSum')(engine, inputs, attributes);
  const row = x.shape.slice(1);
  const y = engine.allocate([numSegments, ...row]);
  engine.run('LlmxEmbeddingGrad', [x, ids, undefined, y], [numSegments, sizeOf(row), 1]);
  return [y];
};

export const embeddingKernels: Readonly<Record<string, NativeKernel>> = {
  LlmxEmbedding: embedding,
  LlmxEmbeddingGrad: embeddingGrad,
  GatherV2: gather,
  UnsortedSegmentSum: segmentSum,
};
