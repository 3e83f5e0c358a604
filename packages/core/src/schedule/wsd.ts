import { z } from 'zod';

import { durationSchema } from '../config/durations.ts';
import { defineSchedule } from '../plugin/define.ts';
import { finalOption, warmupOption, withWarmup } from './warmup.ts';

export const wsd = defineSchedule({
  name: 'wsd',
  summary: 'Warm-up, stable, decay: constant, then falls linearly to `final` over the last `decay` steps.',
  paper: 'https://arxiv.org/abs/2404.06395',
  config: z.strictObject({
    ...warmupOption,
    decay: durationSchema.default('20%').describe('Length of the decay at the end.'),
    ...finalOption(0),
  }),
  build({ warmup, decay, final }, { steps }) {
    const decaySteps = Math.max(1, steps(decay));
    return withWarmup(steps(warmup), (position, length) => {
      const remaining = Math.max(0, length - position);
      return 1 - (1 - final) * Math.max(0, 1 - remaining / decaySteps);
    });
  },
});
