import { z } from 'zod';

import { defineSchedule } from '../plugin/define.ts';
import { warmupOption, withWarmup } from './warmup.ts';

/** sqrt(w / step) with w the length of warm-up, at least 1 (Vaswani et al., section 5.3). */
export const inverseSqrt = defineSchedule({
  name: 'inverse-sqrt',
  summary: 'Falls with the square root of the step after warm-up; does not depend on the length of the run.',
  paper: 'https://arxiv.org/abs/1706.03762',
  config: z.strictObject(warmupOption),
  build({ warmup }, { steps }) {
    const warmupSteps = steps(warmup);
    return withWarmup(warmupSteps, (position) => Math.sqrt(Math.max(1, warmupSteps) / (warmupSteps + position)));
  },
});
