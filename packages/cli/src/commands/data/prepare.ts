import type { PrepareProgress, PrepareSummary } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../../base-command.ts';
import { splitLines } from '../../dataset-lines.ts';
import type { View } from '../../display.ts';
import { numberFlag } from '../../flags.ts';
import { bytes, grouped, joined, shellWord, shortPath, timeLeft } from '../../format.ts';

const LOG_INTERVAL_MS = 10_000;

/** Shows how far the reading has come, on a terminal at once, elsewhere now and then. */
function reporter(view: View): (progress: PrepareProgress) => void {
  const started = performance.now();
  let logged = started;
  return ({ documents, bytes: done, totalBytes }) => {
    const now = performance.now();
    const seconds = (now - started) / 1000;
    const [amount, left] =
      totalBytes === undefined
        ? [bytes(done), '']
        : [`${bytes(done)} of ${bytes(totalBytes)}`, timeLeft(seconds, done, totalBytes)];
    const text = joined(amount, `${grouped(documents)} documents`, `${bytes(done / seconds)}/s`, left);
    view.status(text);
    if (now - logged < LOG_INTERVAL_MS) return;
    logged = now;
    view.log(text);
  };
}

export class DataPrepare extends BaseCommand {
  static override readonly summary = 'Turn text into a token dataset.';
  static override readonly description =
    'Inputs are .txt and .md files (a document a file), .jsonl files (a document a line), folders, globs in quotes, and - for standard input. The dataset appears when it is complete.';
  static override readonly examples = [
    '<%= config.bin %> data prepare texts/ --out data/texts',
    "<%= config.bin %> data prepare 'corpus/*.jsonl' --text-field content --out data/corpus",
  ];
  static override readonly args = {
    inputs: Args.string({
      description: 'Files, folders, globs, or -.',
      required: true,
      multiple: true,
      ignoreStdin: true,
    }),
  };
  static override readonly flags = {
    out: Flags.string({ description: 'Folder of the dataset.', required: true, helpValue: 'DIR' }),
    tokenizer: Flags.string({ description: 'Tokenizer, by name.', default: 'bytes', helpValue: 'NAME' }),
    'text-field': Flags.string({ description: 'Key of the text in .jsonl files.', default: 'text', helpValue: 'KEY' }),
    'val-fraction': numberFlag({ min: 0, max: 0.5 })({
      description: 'Share of the documents held out for evaluation.',
      default: 0.1,
    }),
    force: Flags.boolean({ description: 'Replace a dataset that is there.' }),
  };

  async run(): Promise<PrepareSummary> {
    const { args, flags } = await this.parse(DataPrepare);
    const { core, environment } = await this.open('stopping, nothing is left behind');
    const { tokenizer: name } = flags;
    const tokenizer = { name, instance: new core.Registry([core.builtin]).create('tokenizer', { name }, {}) };
    const summary = await this.display.run(['Preparing'], (view) =>
      core.prepareDataset({
        inputs: args.inputs,
        out: flags.out,
        tokenizer,
        textField: flags['text-field'],
        valFraction: flags['val-fraction'],
        force: flags.force,
        host: environment.host,
        ...(args.inputs.includes('-') && { stdin: process.stdin }),
        onProgress: reporter(view),
      }),
    );
    const path = shortPath(summary.directory);
    this.print(
      `Prepared ${path} with the tokenizer ${name}:`,
      '',
      ...splitLines(summary),
      '',
      'Next:',
      `  llmx init --data ${shellWord(path)}`,
      '  llmx train',
    );
    return summary;
  }
}
