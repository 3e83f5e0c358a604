import { customOp, hasKernel, runKernel } from '../custom-op.ts';
import { takeGradient } from '../differentiate.ts';
import type { Rounding } from '../rounding.ts';
import { tf } from '../tf.ts';
import { columnSums } from './column-sums.ts';

interface NormOptions extends Rounding {
  /** Added to the variance (or mean square). */
  readonly epsilon: number;
  /** Whether the mean is subtracted first. */
  readonly center: boolean;
}

/** Mean (0 where it is not subtracted) and factor 1 / sqrt(variance + epsilon) of each row, float32 [rows, 1]. */
function statistics(x: tf.Tensor, { epsilon, center }: NormOptions): [tf.Tensor, tf.Tensor] {
  const mean = center ? tf.mean(x, -1, true) : tf.zeros([x.shape[0], 1]);
  const centred = center ? tf.sub(x, mean) : x;
  return [mean, tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), epsilon))];
}

const normalise = (rows: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor): tf.Tensor => tf.mul(tf.sub(rows, mean), scale);

/** With h the normalised row and g = dy * weight: dx = scale * (g - mean(g) - h mean(g h)), the first mean if centred. */
function normGradient(dy: tf.Tensor, saved: readonly tf.Tensor[], { center }: NormOptions): tf.Tensor[] {
  const [x, mean, scale, weight] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  const normalised = normalise(x, mean, scale);
  const g = tf.mul(dy, weight);
  const along = tf.mul(normalised, tf.mean(tf.mul(g, normalised), -1, true));
  const across = center ? tf.sub(g, tf.mean(g, -1, true)) : g;
  return [tf.mul(tf.sub(across, along), scale), columnSums(tf.mul(dy, normalised)), columnSums(dy)];
}

function norm(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor | undefined, options: NormOptions): tf.Tensor {
  const width = x.shape.at(-1)!;
  const { epsilon, center, rounded = false } = options;
  const attributes = { epsilon, center, rounded };
  return customOp(
    bias === undefined ? [x, weight] : [x, weight, bias],
    (save) => {
      const rows = tf.reshape(x, [-1, width]);
      const inputs = bias === undefined ? { x: rows, weight } : { x: rows, weight, bias };
      const [y, ...kernelStatistics] = runKernel('LlmxNorm', inputs, attributes) ?? [];
      if (y !== undefined) {
        save([rows, ...kernelStatistics, weight]);
        return tf.reshape(y, x.shape);
      }
      const [mean, scale] = statistics(rows, options);
      save([rows, mean, scale, weight]);
      const scaled = tf.mul(normalise(rows, mean, scale), weight);
      return tf.reshape(bias === undefined ? scaled : tf.add(scaled, bias), x.shape);
    },
    (dy, saved) => {
      const dRows = tf.reshape(dy, [-1, width]);
      const [dx, ...others] = kernelGradients(x, dRows, saved, attributes) ?? normGradient(dRows, saved, options);
      return [tf.reshape(dx!, x.shape), ...others.slice(0, bias === undefined ? 1 : 2)];
    },
  );
}

/** With the kernel, which adds to what the input's gradient has already: that of the residual stream which the norm leads off. */
function kernelGradients(
  x: tf.Tensor,
  dy: tf.Tensor,
  saved: readonly tf.Tensor[],
  attributes: Record<string, number | boolean>,
): tf.Tensor[] | undefined {
  if (!hasKernel('LlmxNormGrad')) return undefined;
  const [rows, mean, scale, weight] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  const sum = takeGradient(x);
  const residual = sum && tf.reshape(sum, rows.shape);
  sum?.dispose();
  const inputs = { dy, x: rows, mean, scale, weight, ...(residual && { residual }) };
  return runKernel('LlmxNormGrad', inputs, attributes);
}

/**
 * Layer normalisation over the last axis (Ba et al., arXiv 1607.06450): (x - mean) / sqrt(variance + epsilon) * weight
 * + bias, variance biased.
 *
 * @param x float32 [..., width]
 * @param weight float32 [width]
 * @param bias float32 [width], optional
 */
export const layerNorm = (
  x: tf.Tensor,
  weight: tf.Tensor,
  bias?: tf.Tensor,
  epsilon = 1e-5,
  { rounded = false }: Rounding = {},
): tf.Tensor => norm(x, weight, bias, { epsilon, center: true, rounded });

/**
 * Root-mean-square normalisation over the last axis (Zhang & Sennrich, arXiv 1910.07467): x / sqrt(mean(x^2) +
 * epsilon) * weight.
 *
 * @param x float32 [..., width]
 * @param weight float32 [width]
 */
export const rmsNorm = (
  x: tf.Tensor,
  weight: tf.Tensor,
  epsilon = 1e-5,
  { rounded = false }: Rounding = {},
): tf.Tensor => norm(x, weight, undefined, { epsilon, center: false, rounded });
