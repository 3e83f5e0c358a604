import { customOp, runKernel } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';
import { columnSums } from './column-sums.ts';
import { multiply } from './matmul.ts';

/**
 * Affine map of the last axis: `x weight + bias`.
 *
 * @param x float32 [..., inputs]
 * @param weight float32 [inputs, outputs]
 * @param bias float32 [outputs], optional
 * @returns float32 [..., outputs]
 */
export function linear(x: tf.Tensor, weight: tf.Tensor, bias?: tf.Tensor): tf.Tensor {
  const [inputs, outputs] = dims(weight, 2);
  const shape = [...x.shape.slice(0, -1), outputs];
  const rows = tf.reshape(x, [-1, inputs]);
  const flat = customOp(
    bias === undefined ? [rows, weight] : [rows, weight, bias],
    (save) => {
      save([rows, weight]);
      const [fused] = bias === undefined ? [] : (runKernel('LlmxLinear', { x: rows, weight, bias }) ?? []);
      if (fused !== undefined) return fused;
      const product = multiply(rows, weight);
      return bias === undefined ? product : tf.add(product, bias);
    },
    (dy, [savedRows, savedWeight]) => {
      const gradients = [
        multiply(dy, savedWeight!, { transposeB: true }),
        multiply(savedRows!, dy, { transposeA: true }),
      ];
      return bias === undefined ? gradients : [...gradients, columnSums(dy)];
    },
  );
  return tf.reshape(flat, shape);
}
