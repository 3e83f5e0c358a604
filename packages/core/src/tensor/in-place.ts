/** Arithmetic of the training step on tensors that nobody else needs: backends with a kernel for it reuse their memory. */
import { runKernel } from './custom-op.ts';
import { tf } from './tf.ts';

/**
 * `sum + x`. May take the memory of `sum` where no other tensor shares it: the caller must not read `sum` afterwards, and
 * disposes both.
 */
export const accumulated = (sum: tf.Tensor, x: tf.Tensor): tf.Tensor =>
  runKernel('LlmxAccumulate', { sum, x })?.[0] ?? tf.add(sum, x);

/** `x * factor`, `factor` a scalar; may take the memory of `x` where `overwrite` allows it and no other tensor shares it. */
export const scaled = (x: tf.Tensor, factor: tf.Tensor, overwrite: boolean): tf.Tensor =>
  runKernel('LlmxScale', { x, factor }, { overwrite })?.[0] ?? tf.mul(x, factor);

/** The sum of all squares, a float32 scalar. */
export const sumOfSquares = (x: tf.Tensor): tf.Tensor =>
  runKernel('LlmxSumOfSquares', { x })?.[0] ?? tf.sum(tf.square(x));
