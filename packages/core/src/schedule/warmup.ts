import { z } from 'zod';

import { durationSchema } from '../config/durations.ts';
import type { Schedule } from '../plugin/types.ts';

/** The option every schedule has. */
export const warmupOption = { warmup: durationSchema.default(0).describe('Length of the linear warm-up.') };

/** Share of the peak learning rate that is left at the last step. */
export const finalOption = (value: number) => ({
  final: z.number().min(0).max(1).default(value).describe('Multiplier at the last step.'),
});

/**
 * Rises linearly over `warmup` steps, reaching 1 at the last of them, and then follows `decay`.
 *
 * @param decay multiplier at `position` steps after warm-up, from 1 to `length` at the last step of the run
 */
export const withWarmup =
  (warmup: number, decay: (position: number, length: number) => number): Schedule =>
  ({ step, totalSteps }) =>
    step <= warmup ? step / warmup : decay(step - warmup, Math.max(1, totalSteps - warmup));
