import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { z } from 'zod';

import { defineBackend } from '../plugin/define.ts';
import { tf } from '../tensor/index.ts';
import { unavailable } from './typed-array-backends.ts';

type PackageName = '@tensorflow/tfjs-node' | '@tensorflow/tfjs-node-gpu';

/** The package's entry, looked up from each folder in turn. */
function locate(name: PackageName, resolveFrom: readonly string[]): string | undefined {
  for (const folder of resolveFrom) {
    try {
      return createRequire(join(folder, 'package.json')).resolve(name);
    } catch {
      // Not installed there.
    }
  }
  return undefined;
}

/**
 * tfjs-node 4.22 calls two functions that Node 23 removed from `util` (tensorflow/tfjs#8609; the fix was merged and
 * never released).
 */
function restoreRemovedUtilities(): void {
  const util = createRequire(import.meta.url)('node:util') as Record<string, unknown>;
  util['isNullOrUndefined'] ??= (value: unknown) => value === null || value === undefined;
  util['isArray'] ??= Array.isArray;
}

interface NodeModule {
  readonly version: { readonly 'tfjs-core': string };
  readonly node?: { readonly nodejsBackend?: unknown };
}

async function load(name: string, packageName: PackageName, resolveFrom: readonly string[]): Promise<string> {
  const entry = locate(packageName, resolveFrom);
  if (entry === undefined)
    throw unavailable(name, `${packageName} is not installed`, `npm install ${packageName}@${tf.version_core}`);
  restoreRemovedUtilities();
  let loaded: NodeModule;
  try {
    const imported = (await import(pathToFileURL(entry).href)) as NodeModule & { default?: NodeModule };
    loaded = imported.default ?? imported;
  } catch (cause) {
    const [reason] = String(cause instanceof Error ? cause.message : cause).split('\n');
    throw unavailable(
      name,
      `${packageName} did not load (${reason})`,
      `npm rebuild ${packageName}, or see its README.`,
    );
  }
  const { 'tfjs-core': version } = loaded.version;
  if (version !== tf.version_core)
    throw unavailable(
      name,
      `${packageName} brings TensorFlow.js ${version}, llmx uses ${tf.version_core}`,
      `npm install ${packageName}@${tf.version_core}`,
    );
  return `${packageName} ${version} from ${entry}`;
}

export const tfjsNodeBackend = defineBackend({
  name: 'tfjs-node',
  summary: "TensorFlow's C library on the CPU, if @tensorflow/tfjs-node is installed.",
  config: z.strictObject({}),
  build: (_config, { resolveFrom }) => ({
    tfjsName: 'tensorflow',
    precisions: ['fp32'],
    load: () => load('tfjs-node', '@tensorflow/tfjs-node', resolveFrom),
  }),
});

export const tfjsNodeGpuBackend = defineBackend({
  name: 'tfjs-node-gpu',
  summary: "TensorFlow's C library on an NVIDIA GPU, if @tensorflow/tfjs-node-gpu is installed.",
  config: z.strictObject({}),
  build: (_config, { resolveFrom }) => ({
    tfjsName: 'tensorflow',
    precisions: ['fp32'],
    async load() {
      const detail = await load('tfjs-node-gpu', '@tensorflow/tfjs-node-gpu', resolveFrom);
      const backend = tf.findBackend('tensorflow') as unknown as { isUsingGpuDevice?: boolean } | null;
      if (backend?.isUsingGpuDevice !== true)
        throw unavailable(
          'tfjs-node-gpu',
          'TensorFlow found no GPU that it can use',
          'It needs an NVIDIA driver, CUDA 11.2 and cuDNN 8.1 on the library path.',
        );
      return detail;
    },
  }),
});
