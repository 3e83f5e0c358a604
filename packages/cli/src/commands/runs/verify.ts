import type { VerifiedRun } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../../base-command.ts';
import { bytes, grouped, shortPath } from '../../format.ts';

export class RunsVerify extends BaseCommand {
  static override readonly summary = 'Compare every file of a run with its hash.';
  static override readonly description =
    'Reads all checkpoints, run.json and metrics.jsonl; names every file that is not what llmx wrote.';
  static override readonly examples = [
    '<%= config.bin %> runs verify first',
    '<%= config.bin %> runs verify runs/first --data',
  ];
  static override readonly args = {
    run: Args.string({ description: 'Run, by name or path.', required: true, ignoreStdin: true }),
  };
  static override readonly flags = {
    data: Flags.boolean({ description: 'Read the whole dataset, too.', default: false }),
  };

  async run(): Promise<VerifiedRun> {
    const { args, flags } = await this.parse(RunsVerify);
    const { core, environment } = await this.open('stopping');
    const verified = await this.display.run(['Verifying'], (view) =>
      core.verifyRun({ run: args.run, data: flags.data, onProgress: (what) => view.status(what) }, environment),
    );
    const { runDir, checkpoints, records, dataset } = verified;
    this.print(
      `${shortPath(runDir)} is as it was written:`,
      `checkpoints  ${checkpoints.length === 0 ? 'none' : `of steps ${checkpoints.map(grouped).join(', ')}`}, ${bytes(verified.bytes)}`,
      `metrics      ${grouped(records)} lines`,
      `dataset      ${dataset === null ? 'not read (--data)' : shortPath(dataset)}`,
    );
    return verified;
  }
}
