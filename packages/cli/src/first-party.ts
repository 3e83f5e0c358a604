import type { Host, Plugin } from '@llmx/core';

/** Packages that bring components known by name, as `kind:name`; a configuration that asks for one gets this hint. */
export const FIRST_PARTY: Host['firstParty'] = {
  'architecture:xlstm': '@llmx/plugin-xlstm',
  'block:mlstm': '@llmx/plugin-xlstm',
  'block:slstm': '@llmx/plugin-xlstm',
  'draft:multi-token': '@llmx/plugin-mtp',
  'draft:multi-token-sequential': '@llmx/plugin-mtp',
  'objective:multi-token': '@llmx/plugin-mtp',
  'objective:multi-token-sequential': '@llmx/plugin-mtp',
  'optimizer:adamc-schedulefree-plus': '@llmx/plugin-schedulefree',
  'optimizer:adamw-schedulefree': '@llmx/plugin-schedulefree',
  'optimizer:radam-schedulefree': '@llmx/plugin-schedulefree',
  'optimizer:schedule-free': '@llmx/plugin-schedulefree',
  'optimizer:sgd-schedulefree': '@llmx/plugin-schedulefree',
};

/** Plugins that come with the command: the CPU engine, whose library is there where it could be built or installed. */
export async function bundledPlugins(): Promise<readonly Plugin[]> {
  const { default: native } = await import('@llmx/backend-native');
  return [native];
}
