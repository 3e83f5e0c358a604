import { LlmxError } from '../errors/index.ts';
import type { tf } from './tf.ts';

interface Shape {
  1: [number];
  2: [number, number];
  3: [number, number, number];
  4: [number, number, number, number];
}

/**
 * The shape of `x` as a tuple of `rank` numbers.
 *
 * @throws LlmxError `LLMX_RANK` if `x` has another rank
 */
export function dims<R extends keyof Shape>(x: tf.Tensor, rank: R): Shape[R] {
  if (x.rank !== rank)
    throw new LlmxError('LLMX_RANK', `Expected a tensor of rank ${rank}, got shape [${x.shape.join(', ')}].`);
  return x.shape as Shape[R];
}
