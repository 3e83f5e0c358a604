/** How a plugin takes part in a run: the hooks and what their handlers get, and the plugin itself. */
import type * as tf from '@tensorflow/tfjs-core';
import type { z } from 'zod';

import type { Precision } from './backend-types.ts';
import type { AnyComponent, HostBatch, Metrics, Params, StateTree } from './types.ts';

export type Awaitable<T> = T | Promise<T>;
/** Takes back what the hook did; called in reverse order, whatever happened in between. */
export type Undo = () => Awaitable<void>;

export interface StepInfo {
  /** Number of the optimizer step, counted from 1. */
  readonly step: number;
  /** Tokens consumed up to and including this step. */
  readonly tokensSeen: number;
}

/** Hooks of a run, in the order in which they first happen. */
export interface Hooks {
  /** Waterfall. Edits the merged configuration before it is validated. */
  resolveConfig(config: Readonly<Record<string, unknown>>): Awaitable<Record<string, unknown> | void>;
  /**
   * Series. The backend is active, whether to train, evaluate, generate or profile: the time to load kernels for it.
   * Nothing has been computed yet.
   */
  backendReady(info: { readonly backend: string; readonly precision: Precision }): Awaitable<void>;
  /** Bracket. Before plugins get their states back and the first step of this process; the returned undo runs last. */
  run(): Awaitable<Undo | void>;
  /** Series. After a checkpoint was loaded and every plugin has its state back. */
  checkpointLoaded(info: StepInfo): Awaitable<void>;
  /** Waterfall, sync. Micro-batches before they are counted and uploaded. */
  batch(batch: HostBatch, info: StepInfo): HostBatch | void;
  /** Waterfall, sync, inside tidy. Accumulated gradients, before clipping. */
  gradients(grads: Params, info: StepInfo): Params | void;
  /** Collect, sync, inside tidy. Scalar tensors, read back together with the step's metrics. */
  inspect(args: StepInfo & { params: Params; grads: Params }): Readonly<Record<string, tf.Tensor>> | void;
  /** Waterfall, sync. Numbers of a logged step before they reach the sinks. */
  metrics(metrics: Metrics, info: StepInfo): Metrics | void;
  /** Series. After a step; reads the step's scalars back, so use `every` unless each step matters. */
  stepEnd(info: StepInfo & { metrics: Metrics }): Awaitable<void>;
  /** Bracket. Around one evaluation. */
  evaluate(info: StepInfo): Awaitable<Undo | void>;
  /** Series. After a checkpoint is complete on disk. */
  checkpointSaved(info: StepInfo & { directory: string }): Awaitable<void>;
  /** Series. When the run fails; it cannot be swallowed. */
  error(info: { error: unknown }): Awaitable<void>;
}
export type HookName = keyof Hooks;

/** How each hook's handlers are combined. Adding a hook without deciding this does not compile. */
export const HOOK_KINDS = {
  resolveConfig: 'waterfall',
  backendReady: 'series',
  run: 'bracket',
  checkpointLoaded: 'series',
  batch: 'waterfall-sync',
  gradients: 'waterfall-sync',
  inspect: 'collect-sync',
  metrics: 'waterfall-sync',
  stepEnd: 'series',
  evaluate: 'bracket',
  checkpointSaved: 'series',
  error: 'series',
} as const satisfies Record<HookName, 'waterfall' | 'bracket' | 'series' | 'waterfall-sync' | 'collect-sync'>;

/** A handler, or one with its place among others: `pre` runs first, `post` last; `every: n` only on steps n, 2n, ... */
export type Hook<F> = F | { readonly order?: 'pre' | 'post'; readonly every?: number; readonly handler: F };
export type HookTable = { readonly [K in HookName]?: Hook<Hooks[K]> };

/** What a plugin does in one run. */
export interface PluginInstance {
  readonly hooks?: HookTable;
  /** Stored under the plugin's name in every checkpoint; a checkpoint with it cannot be loaded without the plugin. */
  saveState?(): StateTree;
  /** After `run`, before `checkpointLoaded`, when a run goes on. *Consumes* the state. */
  loadState?(state: StateTree): void;
}

export interface PluginRun {
  log(message: string): void;
  /** Tells the user of a setting that will not do what they may expect. */
  warn(message: string): void;
}

export interface Plugin<C extends z.ZodType = z.ZodType> {
  /** npm package name, or any name for a file; it prefixes every error raised inside the plugin. */
  readonly name: string;
  readonly version: string;
  /** Semver range of `@llmx/core`; a mismatch is an error at load. */
  readonly llmx: string;
  readonly components?: readonly AnyComponent[];
  /** Schema of the plugin's own options: a strict object without transforms. */
  readonly config?: C;
  /**
   * Called once per run, so per-run state lives in the closure and never in a module. No backend is loaded yet: tensors
   * are made in hooks, from `backendReady` on.
   */
  setup?(config: z.output<C>, run: PluginRun): PluginInstance;
}
