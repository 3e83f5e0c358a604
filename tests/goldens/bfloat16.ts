/** Comparing with reference vectors in `precision: bf16`. */
import { afterAll, beforeAll } from 'vitest';

import { registerNativeBackend } from '@llmx/backend-native';

import { describeEngine } from '../../packages/backend-native/src/testing/kernels.ts';
import { tf } from '../../packages/core/src/tensor/index.ts';

/**
 * Rounding a factor to bfloat16 changes it by at most 1/256 of itself. Errors of the terms of a sum are independent, so that
 * logits and gradients, seen as a whole, come out within a few of these.
 */
export const BFLOAT16_ERROR = 4 / 256;
/** Less than this is no rounding at all. */
export const LEAST_ERROR = 0.1 / 256;

/** |x - y| / |y|, over all elements. */
export function relativeError(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let index = 0; index < y.length; index++) {
    difference += (x[index]! - y[index]!) ** 2;
    norm += y[index]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** `describe` on the native backend with bf16; skipped, with the reason, where it is not there. */
export const describeBfloat16 = (title: string, body: () => void): void =>
  describeEngine(`${title} in bfloat16 on native`, () => {
    beforeAll(async () => {
      await registerNativeBackend({ precision: 'bf16' });
      await tf.setBackend('native');
    });
    afterAll(() => registerNativeBackend());
    body();
  });
