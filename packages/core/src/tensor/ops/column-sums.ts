import { dims } from '../dims.ts';
import { tf } from '../tf.ts';
import { multiply } from './matmul.ts';

/** Sums over the rows of float32 [rows, columns], as a product: reductions over an outer axis transpose first. */
export function columnSums(x: tf.Tensor): tf.Tensor {
  const [rows, columns] = dims(x, 2);
  return tf.reshape(multiply(tf.ones([1, rows]), x), [columns]);
}
