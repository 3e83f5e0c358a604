import { z } from 'zod';

import { attempt, below, check, type Checked, problemsOf, throwProblems, unwrap } from '../config/problems.ts';
import type { Tree } from '../config/tree.ts';
import { LlmxError } from '../errors/index.ts';
import { instanceProblems, pluginProblems } from './check-plugin.ts';
import type { Host } from './host.ts';
import { type CoreModule, importPlugin } from './import-plugin.ts';
import { attributed, duplicateComponents, type PluginId, tag } from './registry.ts';
import type { Plugin, PluginInstance, PluginRun } from './plugin-types.ts';
import type { Selected } from './types.ts';

/** A plugin that takes part in a run. */
export interface ActivePlugin extends PluginId {
  readonly plugin: Plugin;
  /** How the configuration names it: a package or an absolute path. */
  readonly entry: string;
  /** Its validated options, defaults filled in. */
  readonly options: Tree;
  readonly instance: PluginInstance;
}

export interface LoadOptions {
  readonly host: Pick<Host, 'installRoot' | 'log'>;
  /** Folder of the configuration, from which package names resolve first. */
  readonly from: string;
  /** The plugin that holds core's own components; it comes first. */
  readonly builtin: Plugin;
  readonly coreVersion: string;
  readonly coreModule: CoreModule;
}

/** A sound plugin and the entry that names it; `where` is the entry's path in the configuration. */
interface Candidate {
  readonly plugin: Plugin;
  readonly selected: Selected;
  readonly where: string;
}

/**
 * Imports, checks and sets up the plugins that a configuration lists, in that order. A plugin with a problem is not set
 * up, the others are, so that one look shows every problem of every plugin.
 *
 * @throws LlmxProblems `LLMX_PLUGIN_MISSING`, `LLMX_PLUGIN_INVALID`, `LLMX_PLUGIN_VERSION`, `LLMX_PLUGIN_FAILED`,
 *   `LLMX_CORE_DUPLICATE`, `LLMX_COMPONENT_DUPLICATE`, `LLMX_CONFIG_INVALID`, `LLMX_CONFIG_UNKNOWN_KEY`
 */
export async function loadPlugins(entries: readonly Selected[], options: LoadOptions): Promise<ActivePlugin[]> {
  const { builtin, coreVersion } = options;
  const found = [attempt(() => sound(builtin, { name: builtin.name }, 'the built-in plugin', coreVersion))];
  for (const [index, selected] of entries.entries()) {
    const module = await imported(selected.name, options);
    found.push(
      module.problems ? module : attempt(() => sound(module.value, selected, `plugins.${index}`, coreVersion)),
    );
  }
  const candidates = found.flatMap((result) => (result.problems ? [] : [result.value]));
  const active = candidates.map((candidate) => attempt(() => activate(candidate, options.host)));
  throwProblems([
    ...found.flatMap(({ problems }) => problems ?? []),
    ...duplicatePlugins(candidates),
    ...duplicateComponents(candidates.map(({ plugin }) => plugin)),
    ...active.flatMap(({ problems }) => problems ?? []),
  ]);
  return active.flatMap((result) => (result.problems ? [] : [result.value]));
}

async function imported(entry: string, { from, host, coreModule }: LoadOptions): Promise<Checked<unknown>> {
  try {
    return { value: await importPlugin(entry, { from, installRoot: host.installRoot, coreModule }) };
  } catch (error) {
    return { problems: problemsOf(error) };
  }
}

function sound(exported: unknown, selected: Selected, where: string, coreVersion: string): Candidate {
  throwProblems(pluginProblems(exported, selected.name, coreVersion));
  return { plugin: exported as Plugin, selected, where };
}

function activate({ plugin, selected, where }: Candidate, host: LoadOptions['host']): ActivePlugin {
  const { name, version } = plugin;
  const options = validOptions(plugin, selected, where);
  const run: PluginRun = {
    log: (message) => host.log('info', `${tag(plugin)} ${message}`),
    warn: (message) => host.log('warn', `${tag(plugin)} ${message}`),
  };
  const instance: unknown = attributed(plugin, 'could not be set up', () => plugin.setup?.(options, run) ?? {});
  throwProblems(instanceProblems(instance, plugin));
  return { name, version, plugin, entry: selected.name, options, instance: instance as PluginInstance };
}

function validOptions(plugin: Plugin, { name: _, ...given }: Selected, where: string): Tree {
  const checked = check(plugin.config ?? z.strictObject({}), given, below(where));
  if (!checked.problems) return checked.value as Tree;
  return unwrap({
    problems: checked.problems.map(
      ({ code, message, hint }) => new LlmxError(code, `${tag(plugin)} ${message}`, { hint, plugin: plugin.name }),
    ),
  });
}

function duplicatePlugins(candidates: readonly Candidate[]): LlmxError[] {
  return candidates.flatMap(({ plugin, selected }, index) => {
    const earlier = candidates.slice(0, index).find((other) => other.plugin.name === plugin.name);
    if (earlier === undefined) return [];
    const message = `Two plugins are called ${plugin.name}: ${earlier.selected.name} and ${selected.name}.`;
    return [new LlmxError('LLMX_PLUGIN_INVALID', message, { hint: 'Keep one of them.', plugin: plugin.name })];
  });
}
