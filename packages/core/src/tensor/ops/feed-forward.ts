import { customOp } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { isRecording } from '../tape.ts';
import { tf } from '../tf.ts';
import { columnSums } from './column-sums.ts';
import { multiply, multiplyFused, weightGradient } from './matmul.ts';

/** Weight float32 [inputs, outputs] and bias float32 [outputs] of a linear map. */
export interface AffineMap {
  readonly weight: tf.Tensor;
  readonly bias?: tf.Tensor | undefined;
}

/**
 * `gelu(x up) down + residual`, each map with its bias. The hidden layer is activated on its way to memory; only what it
 * was before activation is kept, and the backward pass computes GELU and its derivative on the way of a product: half the
 * memory of keeping both.
 *
 * @param x float32 [..., width]
 * @param residual float32 of the result's shape, optional
 * @returns float32 [..., outputs of `down`]
 */
export function geluFeedForward(x: tf.Tensor, up: AffineMap, down: AffineMap, residual?: tf.Tensor): tf.Tensor {
  const [width] = dims(up.weight, 2);
  const [, outputs] = dims(down.weight, 2);
  const rows = tf.reshape(x, [-1, width]);
  const added = residual && tf.reshape(residual, [-1, outputs]);
  const optional = [up.bias, down.bias, added].flatMap((tensor) => tensor ?? []);
  const second = isRecording();
  const flat = customOp(
    [rows, up.weight, down.weight, ...optional],
    (save) => {
      const forward = { bias: up.bias, activation: 'gelu', second, rounded: true } as const;
      const [hidden, before] = multiplyFused(rows, up.weight, forward);
      if (before !== undefined) save([rows, up.weight, down.weight, before]);
      return multiplyFused(hidden!, down.weight, { bias: down.bias, residual: added })[0]!;
    },
    (dy, saved, wanted) => {
      const [input, upWeight, downWeight, before] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
      const activated = { activation: 'gelu-backward', factor: before, second: true } as const;
      const backward = { ...activated, transposeB: true, rounded: true };
      const [dHidden, hidden] = multiplyFused(dy, downWeight, backward) as [tf.Tensor, tf.Tensor];
      return [
        wanted[0] ? multiply(dHidden, upWeight, { transposeB: true }) : undefined,
        wanted[1] ? weightGradient(input, dHidden) : undefined,
        wanted[2] ? weightGradient(hidden, dy) : undefined,
        ...(up.bias ? [columnSums(dHidden)] : []),
        ...(down.bias ? [columnSums(dy)] : []),
        ...(added ? [dy] : []),
      ];
    },
  );
  return tf.reshape(flat, [...x.shape.slice(0, -1), outputs]);
}
