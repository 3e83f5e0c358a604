import { z } from 'zod';

import { defineSchedule } from '../plugin/define.ts';
import { finalOption, warmupOption, withWarmup } from './warmup.ts';

/** final + (1 - final) (1 + cos(pi t)) / 2, t from 0 at the end of warm-up to 1 at the last step. */
export const cosine = defineSchedule({
  name: 'cosine',
  summary: 'Falls along half a cosine to `final` at the last step.',
  paper: 'https://arxiv.org/abs/1608.03983',
  config: z.strictObject({ ...warmupOption, ...finalOption(0.1) }),
  build: ({ warmup, final }, { steps }) =>
    withWarmup(
      steps(warmup),
      (position, length) => final + ((1 - final) * (1 + Math.cos(Math.PI * Math.min(1, position / length)))) / 2,
    ),
});
