import { z } from 'zod';

import { defineSchedule } from '../plugin/define.ts';
import { finalOption, warmupOption, withWarmup } from './warmup.ts';

export const linear = defineSchedule({
  name: 'linear',
  summary: 'Falls linearly to `final` at the last step.',
  config: z.strictObject({ ...warmupOption, ...finalOption(0) }),
  build: ({ warmup, final }, { steps }) =>
    withWarmup(steps(warmup), (position, length) => 1 - (1 - final) * Math.min(1, position / length)),
});
