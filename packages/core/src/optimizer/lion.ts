import { z } from 'zod';

import { expr } from '../tensor/index.ts';
import { decayOptions, decayRule } from './decay.ts';
import { defineElementwiseOptimizer } from './elementwise.ts';

const { add, mul, sign } = expr;

/**
 * The sign of an interpolated momentum:
 *
 *     p = p - lr (sign(beta1 m + (1 - beta1) g) + weightDecay p)
 *     m = beta2 m + (1 - beta2) g
 *
 * Learning rates are usually 3 to 10 times smaller than AdamW's, with weightDecay larger by the same factor.
 */
export const lion = defineElementwiseOptimizer({
  name: 'lion',
  summary: 'Sign of an interpolated momentum; one buffer per parameter.',
  paper: 'https://arxiv.org/abs/2302.06675',
  config: z.strictObject({
    lr: z.number().min(0).default(1e-4).describe('Learning rate before the schedule.'),
    beta1: z.number().min(0).lt(1).default(0.9),
    beta2: z.number().min(0).lt(1).default(0.99),
    ...decayOptions(1),
  }),
  rule: ({ beta1, beta2, ...decay }) => ({
    ...decayRule(decay),
    slots: ['m'],
    scalars: () => ({}),
    direction: ({ gradient, slots: { m } }) => ({
      direction: sign(add(mul(beta1, m!), mul(1 - beta1, gradient))),
      slots: { m: add(mul(beta2, m!), mul(1 - beta2, gradient)) },
    }),
  }),
});
