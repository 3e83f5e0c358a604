import fs from 'node:fs';
import path from 'node:path';

import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { shellWord, shortPath } from '../format.ts';

const FILE = 'llmx.config.yaml';

export class Init extends BaseCommand {
  static override readonly summary = 'Write a commented configuration to start from.';
  static override readonly examples = [
    '<%= config.bin %> init --data data/texts',
    '<%= config.bin %> init experiments/first',
  ];
  static override readonly args = {
    dir: Args.string({ description: 'Folder of the configuration.', default: '.', ignoreStdin: true }),
  };
  static override readonly flags = {
    data: Flags.string({
      description: 'Folder of the prepared dataset to train on.',
      default: 'data/texts',
      helpValue: 'DIR',
    }),
    force: Flags.boolean({ description: `Overwrite ${FILE}.` }),
  };

  async run(): Promise<{ file: string }> {
    const { args, flags } = await this.parse(Init);
    const { core } = await this.open();
    const folder = path.resolve(args.dir);
    const file = path.join(folder, FILE);
    if (!flags.force && fs.existsSync(file))
      throw new core.LlmxError('LLMX_OUTPUT_EXISTS', `There is a configuration at "${file}" already.`, {
        hint: 'Name another folder, or overwrite it with --force.',
      });
    const dataset = path.relative(folder, path.resolve(flags.data)).replaceAll(path.sep, '/');
    const temporary = `${file}.${process.pid}`;
    try {
      core.makeFolders(folder);
      fs.writeFileSync(temporary, core.starterConfig(dataset));
      fs.renameSync(temporary, file);
    } catch (cause) {
      fs.rmSync(temporary, { force: true });
      throw core.ioError(cause, file, 'write');
    }
    const written = shortPath(file);
    const prepare = fs.existsSync(flags.data) ? [] : [`  llmx data prepare <files> --out ${shellWord(flags.data)}`];
    this.print(`Wrote ${written}.`, '', 'Next:', ...prepare, `  llmx train ${shellWord(written)}`);
    return { file };
  }
}
