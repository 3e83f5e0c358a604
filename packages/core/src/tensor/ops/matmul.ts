import { customOp, runKernel } from '../custom-op.ts';
import { tf } from '../tf.ts';

export interface MatmulOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/** The product, unrecorded: kernel `LlmxMatmul` where the backend's own is slow on batches and transposes. */
export function multiply(a: tf.Tensor, b: tf.Tensor, options: MatmulOptions = {}): tf.Tensor {
  const { transposeA = false, transposeB = false } = options;
  const [product] = runKernel('LlmxMatmul', { a, b }, { transposeA, transposeB }) ?? [];
  return product ?? tf.matMul(a, b, transposeA, transposeB);
}

/**
 * Matrix product over the last two axes, float32 [..., rows, inner] x [..., inner, columns]; leading axes are equal.
 * The options transpose the last two axes of an argument.
 */
export function matmul(a: tf.Tensor, b: tf.Tensor, options: MatmulOptions = {}): tf.Tensor {
  const { transposeA = false, transposeB = false } = options;
  return customOp(
    [a, b],
    (save) => {
      save([a, b]);
      return multiply(a, b, options);
    },
    (dy, [x, y]) => [
      // y = op(a) op(b): d op(a) = dy op(b)^T and d op(b) = op(a)^T dy, transposed back where op transposes.
      transposeA
        ? multiply(y!, dy, { transposeA: transposeB, transposeB: true })
        : multiply(dy, y!, { transposeB: !transposeB }),
      transposeB
        ? multiply(dy, x!, { transposeA: true, transposeB: transposeA })
        : multiply(x!, dy, { transposeA: !transposeA }),
    ],
  );
}
