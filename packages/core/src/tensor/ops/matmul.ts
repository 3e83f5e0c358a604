import { assert } from '../../errors/index.ts';
import { customOp, runKernel } from '../custom-op.ts';
import type { Rounding } from '../rounding.ts';
import { tf } from '../tf.ts';
import { geluValue, geluWithDerivative } from './activation.ts';

export interface MatmulOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/** What an unrecorded product is asked for. */
type ProductOptions = MatmulOptions & Rounding;

/** What is done to a product on its way to memory, in this order. */
export interface Epilogue extends ProductOptions {
  /** Added to every row, float32 [columns]. */
  readonly bias?: tf.Tensor | undefined;
  /**
   * `gelu` of each element. `gelu-backward` multiplies it by the derivative of GELU at `factor`: the backward pass of what
   * was activated.
   */
  readonly activation?: 'gelu' | 'gelu-backward' | undefined;
  /** Of the result's shape, for `gelu-backward`: what GELU was taken of. */
  readonly factor?: tf.Tensor | undefined;
  /** Whether a second result is wanted: what GELU was taken of, or for `gelu-backward` GELU of the factor. */
  readonly second?: boolean | undefined;
  /** Added to each element, of the result's shape. */
  readonly residual?: tf.Tensor | undefined;
  /** Whether nobody reads the residual afterwards, so that the result may take its memory. */
  readonly accumulate?: boolean | undefined;
}

/** The product, unrecorded: kernel `LlmxMatmul` where the backend's own is slow on batches and transposes. */
export function multiply(a: tf.Tensor, b: tf.Tensor, options: ProductOptions = {}): tf.Tensor {
  const { transposeA = false, transposeB = false, rounded = false } = options;
  const [product] = runKernel('LlmxMatmul', { a, b }, { transposeA, transposeB, rounded }) ?? [];
  return product ?? tf.matMul(a, b, transposeA, transposeB);
}

/**
 * The gradient of a linear map's weight, `x^T dy`, unrecorded. Rounded as products' operands are: what has been summed over the
 * rows is rounded once, as with PyTorch's autocast, and sums of such gradients are float32.
 *
 * @param x float32 [rows, inputs]
 * @param dy float32 [rows, outputs]
 * @returns float32 [inputs, outputs]
 */
export const weightGradient = (x: tf.Tensor, dy: tf.Tensor): tf.Tensor =>
  multiply(x, dy, { transposeA: true, rounded: true });

/**
 * The product of two matrices and what follows it, unrecorded: one pass over the result with the kernel
 * `LlmxFusedMatmul`. A linear map with bias has the kernel `LlmxLinear` besides.
 *
 * @returns float32 [rows, columns], and the second result where it is wanted
 */
export function multiplyFused(a: tf.Tensor, b: tf.Tensor, epilogue: Epilogue): tf.Tensor[] {
  const { transposeA = false, transposeB = false, bias, activation, second = false, factor, residual } = epilogue;
  const { rounded = false, accumulate = false } = epilogue;
  const tensors = { ...(bias && { bias }), ...(factor && { factor }), ...(residual && { residual }) };
  const attributes = { transposeA, transposeB, rounded, accumulate, ...(activation && { activation, second }) };
  const fused = runKernel('LlmxFusedMatmul', { a, b, ...tensors }, attributes);
  if (fused !== undefined) return fused;
  const [y, ...others] = activate(biased(a, b, epilogue), epilogue);
  const result = residual === undefined ? y! : tf.add(y!, residual);
  return second ? [result, ...others] : [result];
}

/** The activated product, and the second result. */
function activate(y: tf.Tensor, { activation, factor }: Epilogue): tf.Tensor[] {
  if (activation === undefined) return [y];
  if (activation === 'gelu') return [geluValue(y), y];
  assert(factor !== undefined, 'The backward pass of GELU needs what it was taken of.');
  const [value, slope] = geluWithDerivative(factor);
  return [tf.mul(y, slope), value];
}

function biased(
  x: tf.Tensor,
  weight: tf.Tensor,
  { bias, transposeA = false, transposeB = false }: Epilogue,
): tf.Tensor {
  if (bias === undefined) return multiply(x, weight, { transposeA, transposeB });
  const [fused] = transposeA || transposeB ? [] : (runKernel('LlmxLinear', { x, weight, bias }) ?? []);
  return fused ?? tf.add(multiply(x, weight, { transposeA, transposeB }), bias);
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
