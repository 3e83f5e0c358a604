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

/**
 * Refuses a stored configuration that names a file of code, or its own place, by a relative path: that would be code which
 * came along with it, taken from wherever llmx was started.
 *
 * @param where what stores the configuration
 * @throws LlmxError with that code
 */
export function refuseRelative(
  config: unknown,
  file: string,
  { code, where }: { readonly code: 'LLMX_CHECKPOINT_DAMAGED' | 'LLMX_RUN_DAMAGED'; readonly where: string },
): void {
  const plugins = pluginsSchema.parse(config).plugins.map(({ name }) => name);
  const relative = [file, ...plugins.filter(isPath)].find((each) => !path.isAbsolute(each));
  if (relative === undefined) return;
  throw new LlmxError(code, `${where} names "${relative}" by a relative path, which llmx does not write.`, {
    hint: 'Do not use it unless you know where it comes from: somebody has changed it by hand.',
  });
}

/** What a checkpoint says of its run: what evaluation and generation need where it was copied elsewhere. */
export type CheckpointRun = z.output<typeof runSchema>;

/**
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`
 */
export function describedRun({ state, directory }: Checkpoint): CheckpointRun {
  const [code, where] = ['LLMX_CHECKPOINT_DAMAGED', `The checkpoint "${directory}"`] as const;
  const { data } = runSchema.safeParse(state.run);
  if (data === undefined)
    throw new LlmxError(code, `${where} does not say how its model was configured.`, {
      hint: 'Use the version of llmx that wrote it.',
    });
  refuseRelative(data.config, data.file, { code, where });
  return data;
}
