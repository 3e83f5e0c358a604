import { customOp, hasKernel, runKernel } from '../custom-op.ts';
import { takeGradient } from '../differentiate.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';

/**
 * Rows of a table.
 *
 * @param weight float32 [rows, width]
 * @param ids int32 of any shape, each in [0, rows)
 * @returns float32 [...ids.shape, width]
 */
export function embedding(weight: tf.Tensor, ids: tf.Tensor): tf.Tensor {
  const [rows, width] = dims(weight, 2);
  const flat = tf.reshape(ids, [-1]);
  const looked = customOp(
    [weight],
    (save) => {
      save([flat]);
      return runKernel('LlmxEmbedding', { weight, ids: flat })?.[0] ?? tf.gather(weight, flat);
    },
    (dy, [savedIds]) => {
      if (!hasKernel('LlmxEmbeddingGrad')) return [tf.unsortedSegmentSum(dy, savedIds as tf.Tensor1D, rows)];
      // A tied head has left its gradient here: rows are added to it instead of a table of zeros that is as large.
      const sum = takeGradient(weight);
      const gradients = runKernel('LlmxEmbeddingGrad', { dy, ids: savedIds!, ...(sum && { sum }) }, { rows })!;
      sum?.dispose();
      return gradients;
    },
  );
  return tf.reshape(looked, [...ids.shape, width]);
}
