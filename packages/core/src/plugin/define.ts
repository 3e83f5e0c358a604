import type { z } from 'zod';

import type { Plugin } from './plugin-types.ts';
import type { Component, Kind } from './types.ts';

type Spec<K extends Kind, C extends z.ZodType> = Omit<Component<K, C>, 'kind'>;

const define =
  <K extends Kind>(kind: K) =>
  <C extends z.ZodType>(spec: Spec<K, C>): Component<K, C> => ({ kind, ...spec });

export const defineArchitecture = define('architecture');
export const defineBackend = define('backend');
export const defineBlock = define('block');
export const defineDraft = define('draft');
export const defineObjective = define('objective');
export const defineOptimizer = define('optimizer');
export const defineSchedule = define('schedule');
export const defineSink = define('sink');
export const defineSource = define('source');
export const defineTask = define('task');
export const defineTokenizer = define('tokenizer');

/** A plugin, typed; the default export of a plugin's module. */
export const definePlugin = <C extends z.ZodType>(plugin: Plugin<C>): Plugin<C> => plugin;
