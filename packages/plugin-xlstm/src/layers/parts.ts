/** Cutting and joining whose gradients are slices and joins: splitting and padding have slow kernels on several backends. */
import { customOp, tf } from '@llmx/core';

/** Equal parts of `x` along an axis, unrecorded. */
function cut(x: tf.Tensor, count: number, axis: number): tf.Tensor[] {
  const length = x.shape[axis]! / count;
  const sizes = x.shape.map((size, index) => (index === axis ? length : size));
  return Array.from({ length: count }, (_, place) =>
    tf.slice(
      x,
      x.shape.map((_size, index) => (index === axis ? place * length : 0)),
      sizes,
    ),
  );
}

/** Equal parts of `x` along an axis. */
export function parts(x: tf.Tensor, count: number, axis: number): tf.Tensor[] {
  return Array.from({ length: count }, (_, place) =>
    customOp(
      [x],
      () => cut(x, count, axis)[place]!,
      (dy) => [
        tf.concat(
          Array.from({ length: count }, (_unused, index) => (index === place ? dy : tf.zerosLike(dy))),
          axis,
        ),
      ],
    ),
  );
}

/** Tensors of one shape side by side along an axis. */
export const joined = (tensors: readonly tf.Tensor[], axis: number): tf.Tensor =>
  customOp(
    tensors,
    () => tf.concat([...tensors], axis),
    (dy) => cut(dy, tensors.length, axis),
  );

/** Positions [start, start + length) of axis 1, unrecorded. */
export const span = (x: tf.Tensor, start: number, length: number): tf.Tensor =>
  tf.slice(
    x,
    x.shape.map((_size, axis) => (axis === 1 ? start : 0)),
    x.shape.map((_size, axis) => (axis === 1 ? length : -1)),
  );
