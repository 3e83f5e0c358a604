import path from 'node:path';

import type { DatasetInfo, InspectedSequence, InspectedStep } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../../base-command.ts';
import { splitLines } from '../../dataset-lines.ts';
import { countFlag, setFlag } from '../../flags.ts';
import { bytes, grouped, shortPath, visible } from '../../format.ts';
import { style } from '../../style.ts';

interface InspectedDataset extends DatasetInfo {
  readonly directory: string;
  readonly shards: readonly { readonly file: string; readonly tokens: number; readonly size: number }[];
  /** Whether every byte was compared with its hash. */
  readonly verified: boolean;
}

export class DataInspect extends BaseCommand {
  static override readonly summary = 'Describe a dataset, or show exactly what a training step reads.';
  static override readonly examples = [
    '<%= config.bin %> data inspect data/texts --verify',
    '<%= config.bin %> data inspect --run first --step 7',
    '<%= config.bin %> data inspect --config llmx.config.yaml --step 7 --set train.seed=2',
  ];
  static override readonly args = {
    dir: Args.string({ description: 'Folder of a dataset.', ignoreStdin: true }),
  };
  static override readonly flags = {
    verify: Flags.boolean({ description: 'Read everything and compare it with its hashes.', default: false }),
    run: Flags.string({ description: 'Run whose step is shown, by name or path.', helpValue: 'RUN' }),
    config: Flags.string({ description: 'Configuration whose step is shown.', helpValue: 'FILE' }),
    step: countFlag({ description: 'Number of the step, from 1.' }),
    set: setFlag(),
  };

  async run(): Promise<InspectedDataset | InspectedStep> {
    const { args, flags } = await this.parse(DataInspect);
    const { core, environment } = await this.open();
    const { run, config: file, step, set: sets = [], verify } = flags;
    const usage = (message: string, hint: string) => new core.LlmxError('LLMX_USAGE', message, { hint });
    const subjects = [args.dir, run, file].filter((subject) => subject !== undefined);
    if (subjects.length !== 1)
      throw usage(
        'Exactly one of a dataset, --run and --config can be inspected.',
        'Name one: `llmx data inspect DIR`.',
      );
    if (file === undefined && sets.length > 0) throw usage('--set has no effect without --config.', 'Leave it out.');
    if (args.dir !== undefined) {
      if (step === undefined) return this.#inspectDataset(core, path.resolve(args.dir), verify);
      throw usage('A dataset has no steps.', 'Name a --run or a --config beside --step.');
    }
    if (verify) throw usage('--verify has no effect on a step.', 'Leave it out, or name a dataset.');
    if (step === undefined) throw usage('--step is missing.', 'Give the number of a step, from 1.');
    const inspected = await core.inspectStep({ run, file, sets, step }, environment);
    for (const sequence of inspected.sequences) this.#printSequence(sequence);
    return inspected;
  }

  async #inspectDataset(
    core: typeof import('@llmx/core'),
    directory: string,
    verify: boolean,
  ): Promise<InspectedDataset> {
    const info = verify ? await core.verifyDataset(directory) : core.openDataset(directory).info;
    const { splits } = core.readDatasetJson(directory);
    const shards = Object.values(splits).flatMap((split) => split.shards);
    this.print(
      style('bold', shortPath(directory)),
      '',
      ...splitLines(info),
      '',
      `tokenizer    ${info.tokenizer.name}, ${grouped(info.vocabSize)} ids, end of text ${info.endOfText}`,
      `fingerprint  ${info.fingerprint}`,
      ...shards.map(({ file, size }) => `shard        ${file}, ${bytes(size)}`),
      ...(verify ? ['', 'Every shard and every id matches its hash.'] : []),
    );
    return {
      directory,
      ...info,
      shards: shards.map(({ file, tokens, size }) => ({ file, tokens, size })),
      verified: verify,
    };
  }

  #printSequence({ micro, row, window, text }: InspectedSequence): void {
    this.print(style('bold', `micro ${micro}  row ${row}  window ${window}`), visible(text), '');
  }
}
