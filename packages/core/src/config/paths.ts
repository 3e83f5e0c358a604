import { isAbsolute, resolve } from 'node:path';

import { isTree, type Tree } from './tree.ts';

/** Whether a plugin is named by the path of its file, not as a package. */
export const isPath = (plugin: string): boolean => plugin.startsWith('.') || isAbsolute(plugin);

/** Whether `train.initFrom` is a path, not the name of a run. */
const isRunPath = (run: string): boolean => run.startsWith('.') || /[/\\]/.test(run);

/** `tree` with its relative paths (`data.train`, `train.initFrom`, plugins named by a file) taken from `folder`. */
export function absolutePaths(tree: Tree, folder: string): Tree {
  const { data, plugins, train } = tree;
  const from = isTree(train) ? train['initFrom'] : undefined;
  return {
    ...tree,
    ...(isTree(data) && typeof data['train'] === 'string' && data['train'] !== ''
      ? { data: { ...data, train: resolve(folder, data['train']) } }
      : {}),
    ...(typeof from === 'string' && isRunPath(from)
      ? { train: { ...(train as Tree), initFrom: resolve(folder, from) } }
      : {}),
    ...(Array.isArray(plugins) ? { plugins: plugins.map((plugin: unknown) => absolutePlugin(plugin, folder)) } : {}),
  };
}

function absolutePlugin(plugin: unknown, folder: string): unknown {
  if (typeof plugin === 'string') return isPath(plugin) ? resolve(folder, plugin) : plugin;
  if (isTree(plugin) && typeof plugin['name'] === 'string')
    return { ...plugin, name: absolutePlugin(plugin['name'], folder) };
  return plugin;
}
