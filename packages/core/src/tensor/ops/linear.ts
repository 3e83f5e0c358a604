import { customOp } from '../custom-op.ts';
import { dims } from '../dims.ts';
import type { Rounding } from '../rounding.ts';
import { tf } from '../tf.ts';
import { columnSums } from './column-sums.ts';
import { multiply, multiplyFused, weightGradient } from './matmul.ts';

export interface LinearOptions extends Rounding {
  /** Added to the result, of its shape: the stream that a residual branch ends in. */
  readonly residual?: tf.Tensor | undefined;
}

/**
 * Affine map of the last axis: `x weight + bias + residual`.
 *
 * @param x float32 [..., inputs]
 * @param weight float32 [inputs, outputs]
 * @param bias float32 [outputs], optional
 * @returns float32 [..., outputs]
 */
export function linear(x: tf.Tensor, weight: tf.Tensor, bias?: tf.Tensor, options: LinearOptions = {}): tf.Tensor {
  const [inputs, outputs] = dims(weight, 2);
  const shape = [...x.shape.slice(0, -1), outputs];
  const rows = tf.reshape(x, [-1, inputs]);
  const { rounded } = options;
  const residual = options.residual && tf.reshape(options.residual, [-1, outputs]);
  const flat = customOp(
    [rows, weight, ...(bias ? [bias] : []), ...(residual ? [residual] : [])],
    (save) => {
      save([rows, weight]);
      return multiplyFused(rows, weight, { bias, residual, rounded })[0]!;
    },
    (dy, [savedRows, savedWeight], wanted) => [
      wanted[0] ? multiply(dy, savedWeight!, { transposeB: true }) : undefined,
      wanted[1] ? weightGradient(savedRows!, dy) : undefined,
      ...(bias ? [columnSums(dy)] : []),
      ...(residual ? [dy] : []),
    ],
  );
  return tf.reshape(flat, shape);
}
