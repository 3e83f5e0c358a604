import { runKernel } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';
import { multiply } from './matmul.ts';

/**
 * Sums over the rows of float32 [rows, columns], with the kernel `LlmxColumnSums`; elsewhere as a product, since
 * reductions over an outer axis transpose first.
 */
export function columnSums(x: tf.Tensor): tf.Tensor {
  const [rows, columns] = dims(x, 2);
  const [sums] = runKernel('LlmxColumnSums', { x }) ?? [];
  return sums ?? tf.reshape(multiply(tf.ones([1, rows]), x), [columns]);
}
