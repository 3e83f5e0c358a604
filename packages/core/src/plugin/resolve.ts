import { dirname } from 'node:path';

import { loadConfig } from '../config/load.ts';
import { applyOverrides } from '../config/overrides.ts';
import { absolutePaths } from '../config/paths.ts';
import { below, check, type Checked, throwProblems, unwrap } from '../config/problems.ts';
import { configDifferences } from '../config/resumable.ts';
import { configSchema, DEFAULT_ARCHITECTURE, type RunConfig, type Selection, SELECTIONS } from '../config/schema.ts';
import { isTree, own, pathsOf, type Tree } from '../config/tree.ts';
import { LlmxError } from '../errors/index.ts';
import { HookDriver } from './hook-driver.ts';
import type { Host } from './host.ts';
import { type ActivePlugin, type LoadOptions, loadPlugins } from './loader.ts';
import { resolveArchitecture } from './model-options.ts';
import { Registry } from './registry.ts';
import type { Plugin } from './plugin-types.ts';
import type { Kind } from './types.ts';

export interface ResolveOptions {
  readonly host: Pick<Host, 'cwd' | 'installRoot' | 'firstParty' | 'log'>;
  /** The plugin that holds core's own components. */
  readonly builtin: Plugin;
  /** Plugins of components alone that the installation brings along: there without being listed, in no manifest. */
  readonly bundled?: readonly Plugin[] | undefined;
  readonly coreVersion: string;
  readonly coreModule: LoadOptions['coreModule'];
  /** Loads none of the plugins that the configuration lists. */
  readonly noPlugins?: boolean | undefined;
}

/** Everything a run is made of, checked and with every default filled in. */
export interface Resolved {
  readonly config: RunConfig;
  /** Absolute path of the configuration file. */
  readonly file: string;
  /** Dotted paths of the settings that were given, by files, `--set` or plugins, as opposed to filled in. */
  readonly given: ReadonlySet<string>;
  /** The built-in plugin, then those of the configuration in their order. */
  readonly plugins: readonly ActivePlugin[];
  readonly registry: Registry;
  readonly hooks: HookDriver;
  readonly log: Host['log'];
}

/**
 * From a configuration file to a resolved configuration: the file and those it extends, then `--set`, then the plugins'
 * `resolveConfig` hooks, then the schemas of core and of every selected component.
 *
 * @throws LlmxError `LLMX_CONFIG_MISSING`, `LLMX_CONFIG_INVALID`, `LLMX_USAGE`, `LLMX_HOOK_FAILED`
 * @throws LlmxProblems what `loadPlugins` throws, or everything that is wrong with the settings: `LLMX_CONFIG_INVALID`,
 *   `LLMX_CONFIG_UNKNOWN_KEY`, `LLMX_COMPONENT_UNKNOWN`
 */
export async function resolveConfig(
  options: ResolveOptions & { readonly file?: string | undefined; readonly sets?: readonly string[] | undefined },
): Promise<Resolved> {
  const { cwd } = options.host;
  const { tree, file } = await loadConfig(options.file, cwd);
  const settings = absolutePaths(applyOverrides(tree, options.sets ?? []), cwd);
  const active = await activate(settings, file, options);
  const edited = absolutePaths(await active.hooks.waterfall('resolveConfig', settings), dirname(file));
  if (configDifferences(settings['plugins'], edited['plugins']).length > 0) {
    const order = active.hooks.order('resolveConfig').join(', ');
    throw new LlmxError(
      'LLMX_HOOK_FAILED',
      `A resolveConfig hook (of ${order}) changed plugins, which are loaded by then.`,
    );
  }
  return { ...active, file, given: new Set(pathsOf(edited)), config: validConfig(edited, active, true) };
}

/**
 * Brings a resolved configuration back to life, e.g. that of a run which is to be evaluated: loads its plugins and
 * checks it, with no hook and no inheritance between settings. `file` is where it once came from.
 *
 * @throws LlmxProblems as `resolveConfig`
 */
export async function restoreConfig(config: unknown, file: string, options: ResolveOptions): Promise<Resolved> {
  const settings = isTree(config) ? config : {};
  const active = await activate(settings, file, options);
  return { ...active, file, given: new Set(pathsOf(settings)), config: validConfig(settings, active, false) };
}

type Active = Pick<Resolved, 'plugins' | 'registry' | 'hooks' | 'log'>;

async function activate(settings: Tree, file: string, options: ResolveOptions): Promise<Active> {
  const entries = check(configSchema.shape.plugins, settings['plugins'], below('plugins'));
  throwProblems(entries.problems ?? []);
  const selected = options.noPlugins || entries.problems ? [] : entries.value.map((entry) => asSelection(entry));
  const plugins = await loadPlugins(selected, { ...options, from: dirname(file) });
  const listed = new Set(plugins.map(({ name }) => name));
  const bundled = (options.bundled ?? []).filter(({ name }) => !listed.has(name));
  const registry = new Registry([...plugins.map(({ plugin }) => plugin), ...bundled], options.host.firstParty);
  const hooks = new HookDriver(
    plugins.map(({ name, version, instance }) => ({ name, version, hooks: instance.hooks })),
  );
  return { plugins, registry, hooks, log: options.host.log };
}

/** Checks all settings and throws all their problems, or gives the resolved configuration. */
function validConfig(settings: Tree, { plugins, registry }: Active, inherit: boolean): RunConfig {
  const core = check(configSchema, settings);
  const selections = resolveSelections(settings, registry);
  const sinks = resolveSinks(settings['sinks'], registry);
  const given = isTree(settings['model']) ? settings['model'] : {};
  const { name: architecture } = asSelection(given['architecture'], DEFAULT_ARCHITECTURE);
  const options = resolveArchitecture(architecture, given, registry, inherit);
  const parts = [core, ...Object.values(selections), ...sinks, options];
  throwProblems(parts.flatMap(({ problems }) => problems ?? []));
  const { data, model, train, precision } = unwrap(core);
  const vocabSize = model.vocabSize === undefined ? {} : { vocabSize: model.vocabSize };
  return {
    plugins: plugins.slice(1).map(({ entry, options: chosen }) => ({ name: entry, ...chosen })),
    data: { ...data, source: unwrap(selections.source) },
    model: { architecture, ...vocabSize, contextLength: model.contextLength, ...unwrap(options) },
    objective: unwrap(selections.objective),
    optimizer: unwrap(selections.optimizer),
    schedule: unwrap(selections.schedule),
    sinks: sinks.map(unwrap),
    train,
    backend: unwrap(selections.backend),
    precision,
  };
}

type Selections = Readonly<Record<keyof typeof SELECTIONS, Checked<Selection>>>;

function resolveSelections(settings: Tree, registry: Registry): Selections {
  const resolved = Object.entries(SELECTIONS).map(([kind, { path, name }]) => {
    const value = path.reduce<unknown>((target, key) => (isTree(target) ? own(target, key) : undefined), settings);
    const selected = asSelection(value, name);
    const isAutomatic = kind === 'backend' && selected.name === name;
    return [
      kind,
      isAutomatic ? withoutOptions(selected, path) : registry.check(kind as Kind, selected, below(...path)),
    ];
  });
  return Object.fromEntries(resolved) as Selections;
}

/** `backend: auto` is a choice of core, not a component. */
function withoutOptions({ name, ...options }: Selection, path: readonly string[]): Checked<Selection> {
  const problems = Object.keys(options).map((key) => {
    const setting = below(...path)([key]);
    return new LlmxError('LLMX_CONFIG_UNKNOWN_KEY', `There is no setting "${setting}" of the choice ${name}.`, {
      hint: `Name a ${path.join('.')} to give it settings.`,
    });
  });
  return problems.length > 0 ? { problems } : { value: { name } };
}

function resolveSinks(value: unknown, registry: Registry): readonly Checked<Selection>[] {
  const sinks = check(configSchema.shape.sinks, value);
  if (sinks.problems) return [];
  return sinks.value.map((sink, index) => registry.check('sink', asSelection(sink), below('sinks', index)));
}

/** `name` and `{ name, ...options }` in the one form; what is neither is the schema's to report. */
function asSelection(value: unknown, defaultName = ''): Selection {
  if (typeof value === 'string' && value !== '') return { name: value };
  const options = isTree(value) ? value : {};
  return { ...options, name: typeof options['name'] === 'string' ? options['name'] : defaultName };
}
