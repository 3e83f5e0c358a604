import type { ComponentListing, Kind } from '@llmx/core';
import { Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { componentLines, type ComponentOption, componentOptions } from '../component-lines.ts';
import { style } from '../style.ts';

/** What each kind is, in the order of the list; complete, or it does not compile. */
const KINDS: Readonly<Record<Kind, string>> = {
  architecture: 'model.architecture',
  block: 'entries of model.blocks',
  objective: 'objective',
  optimizer: 'optimizer',
  schedule: 'schedule',
  tokenizer: 'llmx data prepare --tokenizer',
  source: 'data.source',
  sink: 'sinks',
  task: 'evaluation tasks',
  draft: 'drafts for speculative decoding',
  backend: 'backend',
};

type Listed = Omit<ComponentListing, 'options'> & { readonly options: readonly ComponentOption[] };

export class Components extends BaseCommand {
  static override readonly summary = 'List what a configuration can choose from, with options and defaults.';
  static override readonly examples = [
    '<%= config.bin %> components --kind optimizer',
    '<%= config.bin %> components --config llmx.config.yaml',
  ];
  static override readonly flags = {
    kind: Flags.string({
      description: 'Only components of this kind.',
      options: Object.keys(KINDS),
      helpValue: 'KIND',
    }),
    config: Flags.string({ description: 'Configuration whose plugins are listed too.', helpValue: 'FILE' }),
  };

  async run(): Promise<{ components: Listed[] }> {
    const { flags } = await this.parse(Components);
    const { core, environment } = await this.open();
    const { config: file, kind } = flags;
    const registry =
      file === undefined
        ? core.defaultRegistry(environment)
        : (await core.resolveConfig({ ...core.resolveOptions(environment), file })).registry;
    const components = registry.list().filter((component) => kind === undefined || component.kind === kind);
    for (const [name, place] of Object.entries(KINDS)) {
      const listed = components.filter((component) => component.kind === name);
      if (listed.length > 0) this.print(`${style('bold', name.toUpperCase())}  ${style('dim', place)}`, '');
      for (const component of listed) this.print(...componentLines(component), '');
    }
    if (components.length === 0) this.print(`No plugin has a component of kind ${kind}.`);
    return {
      components: components.map((component) => ({ ...component, options: componentOptions(component.options) })),
    };
  }
}
