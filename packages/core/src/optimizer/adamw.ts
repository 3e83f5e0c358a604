import { z } from 'zod';

import { expr } from '../tensor/index.ts';
import { decayOptions, decayRule } from './decay.ts';
import { defineElementwiseOptimizer } from './elementwise.ts';

const { add, mul, div, square, sqrt } = expr;

/**
 * Adam with decoupled weight decay:
 *
 *     m = beta1 m + (1 - beta1) g
 *     v = beta2 v + (1 - beta2) g^2
 *     p = p - lr ((m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + epsilon) + weightDecay p)
 */
export const adamw = defineElementwiseOptimizer({
  name: 'adamw',
  summary: 'Adam with decoupled weight decay; two buffers per parameter.',
  paper: 'https://arxiv.org/abs/1711.05101',
  config: z.strictObject({
    lr: z.number().min(0).default(1e-3).describe('Learning rate before the schedule.'),
    beta1: z.number().min(0).lt(1).default(0.9),
    beta2: z.number().min(0).lt(1).default(0.95),
    epsilon: z.number().positive().default(1e-8),
    ...decayOptions(0.1),
  }),
  rule: ({ beta1, beta2, epsilon, ...decay }) => ({
    ...decayRule(decay),
    slots: ['m', 'v'],
    scalars: (step) => ({ correction1: 1 - beta1 ** step, correction2: 1 - beta2 ** step }),
    direction({ gradient, slots: { m, v }, scalars: { correction1, correction2 } }) {
      const first = add(mul(beta1, m!), mul(1 - beta1, gradient));
      const second = add(mul(beta2, v!), mul(1 - beta2, square(gradient)));
      const scale = add(sqrt(div(second, correction2!)), epsilon);
      return { direction: div(div(first, correction1!), scale), slots: { m: first, v: second } };
    },
  }),
});
