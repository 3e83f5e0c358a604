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

/** The kernel gives results of the shapes, types and values that the cpu backend's gives. */
export function expectLikeCpu(
  name: string,
  kernels: Readonly<Record<string, NativeKernel>>,
  inputs: Readonly<Record<string, TensorInfo>>,
  attributes: Readonly<Record<string, unknown>> = {},
  tolerance: Tolerance = {},
): void {
  const engine = nativeBackend();
  const actual = kernels[name]!(engine, inputs, attributes);
  const expected = fallback(name)(engine, inputs, attributes);
  const kinds = (results: readonly TensorInfo[]) => results.map(({ shape, dtype }) => ({ shape, dtype }));
  expect(kinds(actual)).toEqual(kinds(expected));
  for (const [index, result] of actual.entries())
    expectClose(
      read(result),
      read(expected[index]!),
      tolerance,
      `${name} ${JSON.stringify(attributes)}, result ${index}`,
    );
}
