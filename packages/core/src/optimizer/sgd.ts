import { z } from 'zod';

import { expr } from '../tensor/index.ts';
import { decayOptions, decayRule } from './decay.ts';
import { defineElementwiseOptimizer } from './elementwise.ts';

const { add, mul } = expr;

/**
 * Gradient descent, with heavy-ball momentum where `momentum` is above 0:
 *
 *     m = momentum m + g
 *     p = p - lr (m + weightDecay p), with nesterov: p - lr (g + momentum m + weightDecay p)
 */
export const sgd = defineElementwiseOptimizer({
  name: 'sgd',
  summary: 'Gradient descent with optional momentum; one buffer per parameter, none without momentum.',
  config: z.strictObject({
    lr: z.number().min(0).default(0.1).describe('Learning rate before the schedule.'),
    momentum: z.number().min(0).lt(1).default(0),
    nesterov: z.boolean().default(false),
    ...decayOptions(0),
  }),
  rule: ({ momentum, nesterov, ...decay }) => ({
    ...decayRule(decay),
    slots: momentum === 0 ? [] : ['m'],
    scalars: () => ({}),
    direction({ gradient, slots: { m } }) {
      if (m === undefined) return { direction: gradient, slots: {} };
      const velocity = add(mul(momentum, m), gradient);
      return { direction: nesterov ? add(gradient, mul(momentum, velocity)) : velocity, slots: { m: velocity } };
    },
  }),
});
