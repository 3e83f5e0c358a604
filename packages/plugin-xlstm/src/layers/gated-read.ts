import { at, customOp, dims, type Params, runKernel, swiglu, tf } from '@llmx/core';

import { headNorm } from './norm.ts';

/** That of the norms of this model. */
const EPSILON = 1e-5;

/**
 * The end of the mLSTM layer: (norm(h) * headNorm.weight + skip * mixed) * silu(gate), the norm over each head's features.
 * Runs the kernels `XlstmGatedRead` and `XlstmGatedReadGrad` where there are any.
 *
 * @param h float32 [batch, time, heads, size]
 * @param mixed float32 [batch, time, heads * size], as is `gate`
 * @returns float32 [batch, time, heads * size]
 */
export function gatedRead(params: Params, h: tf.Tensor, mixed: tf.Tensor, gate: tf.Tensor): tf.Tensor {
  const skip = at(params, 'skip');
  if (tf.getKernel('XlstmGatedRead', tf.getBackend()) === undefined)
    return swiglu(gate, tf.add(headNorm(params, 'headNorm', h), tf.mul(mixed, skip)));
  const [batch, time, heads, size] = dims(h, 4);
  const rows = [h, mixed, gate].map((x) => tf.reshape(x, [batch * time, heads, size]));
  const features = [at(params, 'headNorm.weight'), skip].map((x) => tf.reshape(x, [heads, size]));
  const y = customOp(
    [...rows, ...features],
    (save) => {
      save([...rows, ...features]);
      return run('XlstmGatedRead', {}, [...rows, ...features])[0]!;
    },
    (dy, saved) => run('XlstmGatedReadGrad', { dy }, saved),
  );
  return tf.reshape(y, [batch, time, heads * size]);
}

function run(kernel: string, named: Params, inputs: readonly tf.Tensor[]): tf.Tensor[] {
  const [h, mixed, gate, weight, skip] = inputs as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  return runKernel(kernel, { ...named, h, mixed, gate, weight, skip }, { epsilon: EPSILON })!;
}
