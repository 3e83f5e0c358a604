import { z } from 'zod';

import { defineSchedule } from '../plugin/define.ts';
import { warmupOption, withWarmup } from './warmup.ts';

export const constant = defineSchedule({
  name: 'constant',
  summary: 'The full learning rate after warm-up.',
  config: z.strictObject(warmupOption),
  build: ({ warmup }, { steps }) => withWarmup(steps(warmup), () => 1),
});
