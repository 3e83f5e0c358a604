import { reasonOf } from '../config/problems.ts';
import { LlmxError, LlmxProblems } from '../errors/index.ts';
import { PLUGIN_HINT, type PluginId, tag } from './registry.ts';
import {
  HOOK_KINDS,
  type Hook,
  type HookName,
  type Hooks,
  type HookTable,
  type StepInfo,
  type Undo,
} from './plugin-types.ts';

type HooksOfKind<Combined> = { [K in HookName]: (typeof HOOK_KINDS)[K] extends Combined ? K : never }[HookName];
type Handler = (...args: never[]) => unknown;
type Inspected = Exclude<ReturnType<Hooks['inspect']>, void>;

export interface HookOwner extends PluginId {
  readonly hooks?: HookTable | undefined;
}

interface Entry {
  readonly plugin: PluginId;
  readonly handler: Handler;
  readonly every: number;
  readonly rank: number;
}

/** Names a call in errors: which hook, and at which step if it has one. */
interface Call {
  readonly what: string;
  readonly step: number | undefined;
}

const RANK = { pre: 0, normal: 1, post: 2 } as const;

/**
 * Calls the plugins' hooks of one run: one after another, those marked `pre` first, then in the order of the
 * configuration, then those marked `post`. A handler with `every: n` runs at steps n, 2n, ... A failure stops the run:
 * errors of llmx keep their code, others become `LLMX_HOOK_FAILED`, and all carry the plugin's name.
 */
export class HookDriver {
  readonly #entries: ReadonlyMap<HookName, readonly Entry[]>;

  /** `plugins` in the order of the configuration. */
  constructor(plugins: readonly HookOwner[]) {
    const names = Object.keys(HOOK_KINDS) as HookName[];
    this.#entries = new Map(names.map((name) => [name, entriesOf(plugins, name)]));
  }

  /** Names of the plugins that take part in a hook, in calling order. */
  order(name: HookName): string[] {
    return this.#all(name).map(({ plugin }) => plugin.name);
  }

  /** Whether a handler of the hook runs at this step. */
  takesPart(name: HookName, step: number): boolean {
    return this.#due(name, step).length > 0;
  }

  /** Each handler may replace the value; one that returns nothing keeps it. */
  async waterfall<K extends HooksOfKind<'waterfall'>>(name: K, value: Parameters<Hooks[K]>[0]): Promise<typeof value> {
    let current = value;
    for (const entry of this.#all(name)) {
      const next = await call({ what: `${name} hook`, step: undefined }, entry, [current]);
      current = (next as typeof value | undefined) ?? current;
    }
    return current;
  }

  /** As `waterfall`, within a step. */
  waterfallSync<K extends HooksOfKind<'waterfall-sync'>>(
    name: K,
    value: Parameters<Hooks[K]>[0],
    info: StepInfo,
  ): Parameters<Hooks[K]>[0] {
    return this.#due(name, info.step).reduce(
      (current, entry) =>
        (callSync({ what: `${name} hook`, step: info.step }, entry, [current, info]) as typeof value | undefined) ??
        current,
      value,
    );
  }

  /** Everything the handlers return, in one record. */
  collectSync(name: HooksOfKind<'collect-sync'>, args: Parameters<Hooks['inspect']>[0]): Inspected {
    const owners = new Map<string, PluginId>();
    const collected: Record<string, Inspected[string]> = {};
    for (const entry of this.#due(name, args.step)) {
      const result = callSync({ what: `${name} hook`, step: args.step }, entry, [args]) as Inspected | undefined;
      for (const [key, value] of Object.entries(result ?? {})) {
        const owner = owners.get(key);
        if (owner !== undefined) throw reportedTwice(name, key, owner, entry.plugin);
        owners.set(key, entry.plugin);
        collected[key] = value;
      }
    }
    return collected;
  }

  /** One after another; what handlers return is not used. The first failure stops the series. */
  async series<K extends HooksOfKind<'series'>>(name: K, info: Parameters<Hooks[K]>[0]): Promise<void> {
    const step = 'step' in info ? info.step : undefined;
    for (const entry of this.#due(name, step)) await call({ what: `${name} hook`, step }, entry, [info]);
  }

  /**
   * Runs `body` between the handlers and their undos. The undos of all handlers that succeeded run, last first,
   * whatever happened; the first failure is thrown, together with those that follow from it.
   */
  async bracket<K extends HooksOfKind<'bracket'>, T>(
    name: K,
    args: Parameters<Hooks[K]>,
    body: () => Promise<T>,
  ): Promise<T> {
    const step = args[0]?.step;
    const undos: Entry[] = [];
    const failures: unknown[] = [];
    let result: { value: T } | undefined;
    try {
      for (const entry of this.#due(name, step)) {
        const undo = await call({ what: `${name} hook`, step }, entry, args);
        if (undo !== undefined)
          undos.unshift({ ...entry, handler: undoOf(undo, entry, { what: `${name} hook`, step }) });
      }
      result = { value: await body() };
    } catch (error) {
      failures.push(error);
    }
    for (const entry of undos) {
      failures.push(...(await failuresOf({ what: `undo of the ${name} hook`, step }, entry, [])));
    }
    if (result === undefined || failures.length > 0) throw combined(failures);
    return result.value;
  }

  /**
   * Tells the plugins that the run failed and gives the error to throw: `error` itself, or with it what the handlers
   * threw in their turn.
   */
  async failed(error: unknown): Promise<unknown> {
    const failures = [error];
    for (const entry of this.#all('error')) {
      failures.push(...(await failuresOf({ what: 'error hook', step: undefined }, entry, [{ error }])));
    }
    return combined(failures);
  }

  #all(name: HookName): readonly Entry[] {
    return this.#entries.get(name) ?? [];
  }

  #due(name: HookName, step: number | undefined): readonly Entry[] {
    return this.#all(name).filter(({ every }) => step === undefined || step % every === 0);
  }
}

function entriesOf(plugins: readonly HookOwner[], name: HookName): Entry[] {
  return plugins
    .flatMap((plugin) => {
      const hook: Hook<Handler> | undefined = plugin.hooks?.[name];
      if (hook === undefined) return [];
      const { handler, order = 'normal' as const, every = 1 } = typeof hook === 'function' ? { handler: hook } : hook;
      return [{ plugin, handler, every, rank: RANK[order] }];
    })
    .toSorted((a, b) => a.rank - b.rank); // stable: the configuration's order holds within a rank
}

async function call(where: Call, { plugin, handler }: Entry, args: readonly unknown[]): Promise<unknown> {
  try {
    return await handler(...(args as never[]));
  } catch (cause) {
    throw hookFailed(where, plugin, cause);
  }
}

/** What a call threw, as a list. */
async function failuresOf(where: Call, entry: Entry, args: readonly unknown[]): Promise<unknown[]> {
  try {
    await call(where, entry, args);
    return [];
  } catch (error) {
    return [error];
  }
}

function callSync(where: Call, { plugin, handler }: Entry, args: readonly unknown[]): unknown {
  let result: unknown;
  try {
    result = handler(...(args as never[]));
  } catch (cause) {
    throw hookFailed(where, plugin, cause);
  }
  if (!(result instanceof Promise)) return result;
  result.catch(() => {}); // the error below tells; an unhandled rejection would end the process before it does
  throw new LlmxError('LLMX_HOOK_ASYNC', `${tag(plugin)} the ${where.what} returned a promise${atStep(where)}.`, {
    hint: 'This hook runs inside the step and must be synchronous: remove async from its handler.',
    plugin: plugin.name,
  });
}

function undoOf(undo: unknown, { plugin }: Entry, where: Call): Undo {
  if (typeof undo === 'function') return undo as Undo;
  throw new LlmxError('LLMX_HOOK_FAILED', `${tag(plugin)} the ${where.what} returned a value of type ${typeof undo}.`, {
    hint: 'It returns nothing, or the function that takes back what it did.',
    plugin: plugin.name,
  });
}

function hookFailed(where: Call, plugin: PluginId, cause: unknown): LlmxError {
  if (LlmxError.is(cause)) {
    cause.plugin ??= plugin.name;
    return cause;
  }
  const message = `${tag(plugin)} the ${where.what} failed${atStep(where)}: ${reasonOf(cause)}.`;
  return new LlmxError('LLMX_HOOK_FAILED', message, { hint: PLUGIN_HINT, cause, plugin: plugin.name });
}

const atStep = ({ step }: Call): string => (step === undefined ? '' : ` at step ${step}`);

const reportedTwice = (hook: string, key: string, first: PluginId, second: PluginId): LlmxError =>
  new LlmxError('LLMX_HOOK_FAILED', `${tag(first)} and ${tag(second)} both report "${key}" from the ${hook} hook.`, {
    hint: 'Put a word of its own before the keys of one of them.',
    plugin: second.name,
  });

/** One error out of several: the first decides what it is, the others are told with it. */
function combined(failures: readonly unknown[]): unknown {
  const [first, ...others] = failures;
  if (others.length === 0) return first;
  if (failures.every((failure) => LlmxError.is(failure)))
    return new LlmxProblems(failures as [LlmxError, ...LlmxError[]]);
  return new AggregateError(failures, failures.map(reasonOf).join('; then '), { cause: first });
}
