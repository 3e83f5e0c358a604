import { optionsJsonSchema, type JsonSchema } from '../config/json-schema.ts';
import {
  attempt,
  below,
  check,
  type Checked,
  type Locate,
  reasonOf,
  throwProblems,
  unwrap,
} from '../config/problems.ts';
import { LlmxError, nearest } from '../errors/index.ts';
import type { Plugin } from './plugin-types.ts';
import type { Component, Create, Kind, Selected } from './types.ts';

export interface PluginId {
  readonly name: string;
  readonly version: string;
}

/** What a user can do about an error that is a plugin's. */
export const PLUGIN_HINT = 'Repair or update the plugin, or remove it from plugins.';

/** How errors name a plugin. */
export const tag = ({ name, version }: PluginId): string => `[plugin ${name} ${version}]`;

/** A line of `llmx components`. */
export interface ComponentListing {
  readonly kind: Kind;
  readonly name: string;
  readonly summary: string;
  readonly paper?: string | undefined;
  readonly plugin: PluginId;
  /** JSON Schema of its options. */
  readonly options: JsonSchema;
}

interface Registered<K extends Kind = Kind> {
  readonly component: Component<K>;
  readonly plugin: Plugin;
}

/** The components that one run can choose from. */
export class Registry {
  readonly #components: ReadonlyMap<string, Registered>;
  readonly #firstParty: Readonly<Record<string, string>>;

  /**
   * `firstParty` tells which package brings a component, as `kind:name`.
   *
   * @throws LlmxProblems `LLMX_COMPONENT_DUPLICATE`
   */
  constructor(plugins: readonly Plugin[], firstParty: Readonly<Record<string, string>> = {}) {
    throwProblems(duplicateComponents(plugins));
    this.#components = new Map(registrations(plugins));
    this.#firstParty = firstParty;
  }

  /**
   * The component of that kind and name.
   *
   * @throws LlmxError `LLMX_COMPONENT_UNKNOWN`
   */
  get<K extends Kind>(kind: K, name: string): Component<K> {
    return this.#find(kind, name).component;
  }

  /**
   * The plugin that brings the component of that kind and name.
   *
   * @throws LlmxError `LLMX_COMPONENT_UNKNOWN`
   */
  owner(kind: Kind, name: string): PluginId {
    return this.#find(kind, name).plugin;
  }

  /** Checks options against the component's schema and fills its defaults in; `locate` names settings in problems. */
  check(kind: Kind, { name, ...options }: Selected, locate: Locate = below(name)): Checked<Selected> {
    const found = attempt(() => this.#find(kind, name));
    if (found.problems) return found;
    const { component, plugin } = found.value;
    // Rules between options are code of the plugin, and may fail.
    const checked = attempt(() =>
      attributed(plugin, `could not check the options of ${kind} "${name}"`, () =>
        unwrap(check(component.config, options, locate)),
      ),
    );
    return checked.problems ? checked : { value: { name, ...(checked.value as object) } };
  }

  /**
   * Builds a component with validated options.
   *
   * @throws LlmxError `LLMX_COMPONENT_UNKNOWN`, `LLMX_PLUGIN_FAILED`, or the component's own
   * @throws LlmxProblems `LLMX_CONFIG_INVALID`, `LLMX_CONFIG_UNKNOWN_KEY`
   */
  readonly create: Create = (kind, selected, context) => {
    const { component, plugin } = this.#find(kind, selected.name);
    const { name: _, ...options } = unwrap(this.check(kind, selected));
    return attributed(plugin, `${kind} "${selected.name}" could not be built`, () =>
      // TypeScript cannot see that the context of a kind without `create`, and `create`, are that kind's context.
      component.build(options, { ...context, create: this.create } as never),
    );
  };

  /** Every component, in the order in which plugins registered them. */
  list(): ComponentListing[] {
    return [...this.#components.values()].map(({ component, plugin: { name, version } }) => ({
      kind: component.kind,
      name: component.name,
      summary: component.summary,
      paper: component.paper,
      plugin: { name, version },
      options: optionsJsonSchema(component.config),
    }));
  }

  /** The components themselves, e.g. for the JSON Schema of the configuration. */
  components(): Component[] {
    return [...this.#components.values()].map(({ component }) => component);
  }

  #find<K extends Kind>(kind: K, name: string): Registered<K> {
    const registered = this.#components.get(`${kind}:${name}`);
    if (registered === undefined) throw this.#unknown(kind, name);
    return registered as Registered<K>;
  }

  #unknown(kind: Kind, name: string): LlmxError {
    const names = this.components().flatMap((component) => (component.kind === kind ? [component.name] : []));
    const hint = this.#whereToFind(kind, name, names);
    return new LlmxError('LLMX_COMPONENT_UNKNOWN', `There is no ${kind} "${name}".`, { hint });
  }

  #whereToFind(kind: Kind, name: string, known: readonly string[]): string {
    const provider = this.#firstParty[`${kind}:${name}`];
    if (provider !== undefined) return `Run "npm install ${provider}" and add ${provider} to plugins.`;
    const near = nearest(name, known);
    if (near !== undefined) return `Did you mean "${near}"?`;
    return known.length > 0 ? `Known ${kind}s: ${known.toSorted().join(', ')}.` : `No loaded plugin has a ${kind}.`;
  }
}

/** Problems of components that two plugins, or one plugin twice, register under one kind and name. */
export function duplicateComponents(plugins: readonly Plugin[]): LlmxError[] {
  const owners = new Map<string, Plugin>();
  return registrations(plugins).flatMap(([key, { component, plugin }]) => {
    const owner = owners.get(key);
    if (owner === undefined) {
      owners.set(key, plugin);
      return [];
    }
    const both = owner === plugin ? `${tag(plugin)} twice registers` : `${tag(owner)} and ${tag(plugin)} both register`;
    return new LlmxError('LLMX_COMPONENT_DUPLICATE', `${both} the ${component.kind} "${component.name}".`, {
      hint: 'Rename one of the two components, or remove the plugin that brings it.',
      plugin: plugin.name,
    });
  });
}

const registrations = (plugins: readonly Plugin[]): [string, Registered][] =>
  plugins.flatMap((plugin) =>
    (plugin.components ?? []).map((component): [string, Registered] => [
      `${component.kind}:${component.name}`,
      { component, plugin },
    ]),
  );

/** What code of a plugin threw, with the plugin's name; errors that are none of llmx's say what failed. */
export function failureOf(plugin: PluginId, what: string, cause: unknown): LlmxError {
  if (LlmxError.is(cause)) {
    cause.plugin ??= plugin.name;
    return cause;
  }
  const message = `${tag(plugin)} ${what}: ${reasonOf(cause)}.`;
  return new LlmxError('LLMX_PLUGIN_FAILED', message, { hint: PLUGIN_HINT, cause, plugin: plugin.name });
}

/** Runs code of a plugin; what it throws is a `failureOf` it. */
export function attributed<T>(plugin: PluginId, what: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw failureOf(plugin, what, cause);
  }
}
