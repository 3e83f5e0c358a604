import path from 'node:path';

import { z } from 'zod';

import type { Checkpoint } from '../checkpoint/load-checkpoint.ts';
import { isPath } from '../config/paths.ts';
import { LlmxError } from '../errors/index.ts';

const runSchema = z.object({
  config: z.record(z.string(), z.unknown()),
  /** Absolute path of the configuration file, from whose folder plugins resolve. */
  file: z.string(),
  tokenizer: z.object({ name: z.string(), hash: z.string() }),
});

const pluginsSchema = z.object({ plugins: z.array(z.looseObject({ name: z.string() })).catch([]) });

/** Files that a checkpoint names, where plugins are loaded from. */
function namedFiles({ config, file }: CheckpointRun): string[] {
  const { plugins } = pluginsSchema.parse(config);
  return [file, ...plugins.map(({ name }) => name).filter(isPath)];
}

/** What a checkpoint says of its run: what evaluation and generation need where it was copied elsewhere. */
export type CheckpointRun = z.output<typeof runSchema>;

/**
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`
 */
export function describedRun({ state, directory }: Checkpoint): CheckpointRun {
  const { data } = runSchema.safeParse(state.run);
  if (data === undefined)
    throw new LlmxError(
      'LLMX_CHECKPOINT_DAMAGED',
      `The checkpoint "${directory}" does not say how its model was configured.`,
      { hint: 'Use the version of llmx that wrote it.' },
    );
  // It would be code that came along with the checkpoint, taken from wherever llmx was started.
  const relative = namedFiles(data).find((file) => !path.isAbsolute(file));
  if (relative === undefined) return data;
  throw new LlmxError(
    'LLMX_CHECKPOINT_DAMAGED',
    `The checkpoint "${directory}" names "${relative}" by a relative path, which llmx does not write.`,
    { hint: 'Do not use it unless you know where it comes from: somebody has made its state.json by hand.' },
  );
}
