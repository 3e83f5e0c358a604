import { customOp } from '../custom-op.ts';
import { takeGradient } from '../differentiate.ts';
import { dims } from '../dims.ts';
import type { Rounding } from '../rounding.ts';
import { tf } from '../tf.ts';
import { columnSums } from './column-sums.ts';
import { multiplyFused, weightGradient } from './matmul.ts';

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
  const { residual, rounded } = options;
  return customOp(
    [x, weight, ...(bias ? [bias] : []), ...(residual ? [residual] : [])],
    (save) => {
      const rows = tf.reshape(x, [-1, inputs]);
      save([rows, weight]);
      const added = residual && tf.reshape(residual, [-1, outputs]);
      const [y] = multiplyFused(rows, weight, { bias, residual: added, rounded });
      return tf.reshape(y!, shape);
    },
    (dy, [rows, savedWeight], wanted) => {
      const dRows = tf.reshape(dy, [-1, outputs]);
      return [
        wanted[0] ? inputGradient(x, dRows, savedWeight!) : undefined,
        wanted[1] ? weightGradient(rows!, dRows) : undefined,
        ...(bias ? [columnSums(dRows)] : []),
        ...(residual ? [dy] : []),
      ];
    },
  );
}

/**
 * `dy weight^T` as gradient of `x`. What has come together of that gradient so far is added on the product's way to memory:
 * queries, keys and values are three maps of one tensor.
 */
function inputGradient(x: tf.Tensor, dy: tf.Tensor, weight: tf.Tensor): tf.Tensor {
  const sum = takeGradient(x);
  const residual = sum && tf.reshape(sum, [-1, x.shape.at(-1)!]);
  sum?.dispose();
  const [dx] = multiplyFused(dy, weight, { transposeB: true, residual, accumulate: true });
  return tf.reshape(dx!, x.shape);
}
