import { LlmxError } from '@llmx/core';

import type { TensorInfo } from './engine.ts';

const list = (shape: readonly (number | undefined)[]): string => `[${shape.map((size) => size ?? 'any').join(', ')}]`;

/**
 * The tensor, if it is there with that type and shape; undefined stands for any length.
 *
 * @throws LlmxError `LLMX_NATIVE_ARGUMENT`
 */
export function requireShape(
  kernel: string,
  name: string,
  info: TensorInfo | undefined,
  shape: readonly (number | undefined)[],
  dtype: 'float32' | 'int32' = 'float32',
): TensorInfo {
  const fits =
    info?.dtype === dtype &&
    info.shape.length === shape.length &&
    shape.every((size, axis) => size === undefined || size === info.shape[axis]);
  if (fits) return info;
  const got = info === undefined ? 'nothing' : `${info.dtype} ${list(info.shape)}`;
  throw new LlmxError('LLMX_NATIVE_ARGUMENT', `${kernel} needs ${name} as ${dtype} ${list(shape)}, got ${got}.`, {
    hint: 'Pass tensors of these shapes; a kernel cannot guess how to read others.',
  });
}
