import { Args } from '@oclif/core';

import { BaseCommand } from '../../base-command.ts';

export class ConfigSchema extends BaseCommand {
  static override readonly summary = 'Print the JSON Schema of configuration files.';
  static override readonly description =
    'Editors check and complete a file with it. Naming a configuration adds the components of its plugins.';
  static override readonly examples = ['<%= config.bin %> config schema > llmx.schema.json'];
  static override readonly args = {
    config: Args.string({ description: 'Configuration whose plugins are loaded.', ignoreStdin: true }),
  };

  async run(): Promise<object> {
    const { args } = await this.parse(ConfigSchema);
    const { core, environment } = await this.open();
    const { config: file } = args;
    const registry =
      file === undefined
        ? core.defaultRegistry(environment)
        : (await core.resolveConfig({ ...core.resolveOptions(environment), file })).registry;
    const schema = core.configJsonSchema(registry.components());
    this.print(JSON.stringify(schema, null, 2));
    return schema;
  }
}
