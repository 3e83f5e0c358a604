import { requireShape } from '../check.ts';
import type { NativeKernel } from '../engine.ts';

/**
 * Turns the pairs (i, i + size / 2) of each head; see core's `rotary`.
 *
 * Inputs: x float32 [batch, time, heads, size], cos and sin [batch or 1, time, 1, size / 2]. Result: y, like x.
 */
const rotary: NativeKernel = (engine, inputs) => {
  const kernel = 'LlmxRotary';
  const x = requireShape(kernel, 'x', inputs['x'], [undefined, undefined, undefined, undefined]);
  const [batch, time, heads, size] = x.shape as [number, number, number, number];
  const positionBatch = inputs['cos']?.shape[0] === 1 ? 1 : batch;
  // An odd size has no half that a tensor could have, so it is refused too.
  const perPosition = [positionBatch, time, 1, size / 2];
  const cos = requireShape(kernel, 'cos', inputs['cos'], perPosition);
  const sin = requireShape(kernel, 'sin', inputs['sin'], perPosition);
  const y = engine.allocateRounded(x.shape);
  engine.run(kernel, [x, cos, sin, y], [batch, time, heads, size, positionBatch], [0, 3]);
  return [y];
};

export const rotaryKernels: Readonly<Record<string, NativeKernel>> = { LlmxRotary: rotary };
