/** Comparing kernels that have TensorFlow.js's names with tfjs-backend-cpu's. */
import { expect } from 'vitest';

import { nativeBackend } from '../component.ts';
import type { NativeKernel, TensorInfo } from '../engine.ts';
import { fallback } from '../fallback.ts';
import { expectClose, type Tolerance } from './compare.ts';

type Values = Float32Array | Int32Array;

/** A tensor of the native backend. */
export function tensor(values: Values, ...shape: number[]): TensorInfo {
  const dtype = values instanceof Float32Array ? 'float32' : 'int32';
  return { dataId: nativeBackend().write(values, shape, dtype), shape, dtype };
}

export const read = ({ dataId }: TensorInfo): Values => nativeBackend().readSync(dataId) as Values;

/** The kernel gives the shape, type and values that the cpu backend's gives. */
export function expectLikeCpu(
  name: string,
  kernels: Readonly<Record<string, NativeKernel>>,
  inputs: Readonly<Record<string, TensorInfo>>,
  attributes: Readonly<Record<string, unknown>> = {},
  tolerance: Tolerance = {},
): void {
  const engine = nativeBackend();
  const [actual, expected] = [kernels[name]!, fallback(name)].map((kernel) => kernel(engine, inputs, attributes)[0]!);
  expect({ shape: actual!.shape, dtype: actual!.dtype }).toEqual({ shape: expected!.shape, dtype: expected!.dtype });
  expectClose(read(actual!), read(expected!), tolerance, `${name} ${JSON.stringify(attributes)}`);
}
