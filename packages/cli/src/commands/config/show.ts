import type { RunConfig } from '@llmx/core';
import { Args } from '@oclif/core';

import { BaseCommand } from '../../base-command.ts';
import { setFlag } from '../../flags.ts';

export class ConfigShow extends BaseCommand {
  static override readonly summary = 'Print a configuration with every default filled in.';
  static override readonly description = 'What it prints is a configuration itself, and trains the same.';
  static override readonly examples = ['<%= config.bin %> config show small.yaml --set train.steps=2000 > longer.yaml'];
  static override readonly args = {
    config: Args.string({ description: 'Configuration; default: llmx.config.* of this folder.', ignoreStdin: true }),
  };
  static override readonly flags = { set: setFlag() };

  async run(): Promise<RunConfig> {
    const { args, flags } = await this.parse(ConfigShow);
    const { core, environment } = await this.open();
    const { config } = await core.resolveConfig({
      ...core.resolveOptions(environment),
      file: args.config,
      sets: flags.set ?? [],
    });
    const { stringify } = await import('yaml');
    this.print(stringify(config).trimEnd());
    return config;
  }
}
