import { z } from 'zod';

import type { Checkpoint } from '../checkpoint/load-checkpoint.ts';
import { LlmxError } from '../errors/index.ts';

const runSchema = z.object({
  config: z.record(z.string(), z.unknown()),
  /** Absolute path of the configuration file, from whose folder plugins resolve. */
  file: z.string(),
  tokenizer: z.object({ name: z.string(), hash: z.string() }),
});

/** What a checkpoint says of its run: what evaluation and generation need where it was copied elsewhere. */
export type CheckpointRun = z.output<typeof runSchema>;

/**
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`
 */
export function describedRun({ state, directory }: Checkpoint): CheckpointRun {
  const { success, data } = runSchema.safeParse(state.run);
  if (success) return data;
  throw new LlmxError(
    'LLMX_CHECKPOINT_DAMAGED',
    `The checkpoint "${directory}" does not say how its model was configured.`,
    {
      hint: 'Use the version of llmx that wrote it.',
    },
  );
}
