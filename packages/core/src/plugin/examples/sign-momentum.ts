import { at, defineOptimizer, definePlugin, mapParams, type Optimizer, type Params, tf, z } from '@llmx/core';

const config = z.strictObject({
  lr: z.number().min(0).default(1e-4).describe('Learning rate before the schedule.'),
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.99),
  weightDecay: z.number().min(0).default(0.1),
});

/** Step of an exponential moving average: beta a + (1 - beta) b. */
const mixed = (a: tf.Tensor, b: tf.Tensor, beta: number): tf.Tensor => tf.add(tf.mul(a, beta), tf.mul(b, 1 - beta));

/**
 * The sign of an interpolated momentum (Lion):
 *
 *     u = sign(beta1 m + (1 - beta1) g)
 *     m = beta2 m + (1 - beta2) g
 *     p = p - lr (u + weightDecay p)
 *
 * State: one float32 buffer per parameter. Learning rates are usually 3 to 10 times smaller than AdamW's, with
 * weightDecay larger by the same factor.
 */
const signMomentum = defineOptimizer({
  name: 'sign-momentum',
  summary: 'Sign of an interpolated momentum; one buffer per parameter.',
  paper: 'https://arxiv.org/abs/2302.06675',
  config,
  build: ({ beta1, beta2, weightDecay }): Optimizer<{ momentum: Params }> => ({
    init: (params) => ({ momentum: mapParams(params, (parameter) => tf.zerosLike(parameter)) }),
    update({ grads, params, state: { momentum }, lr }) {
      const moved = mapParams(params, (parameter, path) => {
        const direction = tf.sign(mixed(at(momentum, path), at(grads, path), beta1));
        return tf.sub(parameter, tf.mul(tf.add(direction, tf.mul(parameter, weightDecay)), lr));
      });
      return { params: moved, state: { momentum: mapParams(momentum, (m, path) => mixed(m, at(grads, path), beta2)) } };
    },
  }),
});

export default definePlugin({
  name: 'llmx-plugin-sign-momentum',
  version: '1.0.0',
  llmx: '>=0.1.0',
  components: [signMomentum],
});
