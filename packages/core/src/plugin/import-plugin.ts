import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { createJiti } from 'jiti';

import { importModule } from '../config/import-module.ts';
import { isPath } from '../config/paths.ts';
import { reasonOf } from '../config/problems.ts';
import { LlmxError, LlmxProblems } from '../errors/index.ts';
import { PLUGIN_HINT } from './registry.ts';

/** What `@llmx/core` exports; a plugin file gets this very copy of it, and TensorFlow.js and zod through it. */
export type CoreModule = Readonly<Record<string, unknown>> & { readonly tf: object; readonly z: object };

export interface ImportPlaces {
  /** Folder of the configuration: plugins are looked for from here ... */
  readonly from: string;
  /** ... and then from here. */
  readonly installRoot: string;
  readonly coreModule: CoreModule;
}

/**
 * Imports the module of a plugin and gives its default export. `entry` is a package name or an absolute path.
 *
 * @throws LlmxError `LLMX_PLUGIN_MISSING`, `LLMX_PLUGIN_INVALID`, `LLMX_PLUGIN_FAILED`
 * @throws LlmxProblems `LLMX_CORE_DUPLICATE`
 */
export async function importPlugin(entry: string, places: ImportPlaces): Promise<unknown> {
  const file = isPath(entry) ? existingFile(entry) : locate(entry, [places.from, places.installRoot]);
  const needsNoBuild = isPath(entry) || /\.[cm]?ts$/.test(file);
  if (!needsNoBuild) refuseSecondCopies(entry, file);
  try {
    return await (needsNoBuild ? importSource(file, places.coreModule) : importDefault(file));
  } catch (cause) {
    throw new LlmxError('LLMX_PLUGIN_FAILED', `[plugin ${entry}] could not be imported: ${reasonOf(cause)}.`, {
      hint: PLUGIN_HINT,
      cause,
      plugin: entry,
    });
  }
}

function existingFile(file: string): string {
  if (existsSync(file) && statSync(file).isFile()) return file;
  throw new LlmxError('LLMX_PLUGIN_MISSING', `[plugin ${file}] does not exist.`, {
    hint: 'Paths under plugins are relative to the configuration that names them.',
    plugin: file,
  });
}

/** A file without a build step gets the running copies of what it shares with core, wherever it lies. */
function importSource(file: string, coreModule: CoreModule): Promise<unknown> {
  const { tf, z } = coreModule;
  const zod = { ...z, z, default: z };
  return importModule(file, { '@llmx/core': coreModule, '@tensorflow/tfjs-core': tf, zod });
}

async function importDefault(file: string): Promise<unknown> {
  const module = (await import(pathToFileURL(file).href)) as { readonly default?: unknown };
  return module.default;
}

/** The real file that a package name stands for, as an import from the first of `folders` that has it would find it. */
function locate(name: string, folders: readonly string[]): string {
  let broken: unknown;
  for (const folder of folders) {
    try {
      return realpathSync(
        fileURLToPath(createJiti(join(folder, 'llmx.config.js'), { fsCache: false }).esmResolve(name)),
      );
    } catch (error) {
      const isAbsent = (error as Error).message.startsWith(`Cannot find module '${name}'`);
      if (!isAbsent) broken ??= error;
    }
  }
  if (broken === undefined) throw notInstalled(name, folders);
  throw new LlmxError('LLMX_PLUGIN_INVALID', `[plugin ${name}] has no module to import: ${reasonOf(broken)}.`, {
    hint: 'The exports of its package.json must name a file that exists; a plugin in development must be built first.',
    cause: broken,
    plugin: name,
  });
}

const notInstalled = (name: string, folders: readonly string[]): LlmxError =>
  new LlmxError('LLMX_PLUGIN_MISSING', `[plugin ${name}] is not installed: looked from ${folders.join(' and ')}.`, {
    hint: `Run "npm install ${name}" in the folder of the configuration.`,
    plugin: name,
  });

const SHARED = ['@llmx/core', '@tensorflow/tfjs-core'];

/** Two copies of these would each have tensors, backends and gradients of their own, and fail in obscure ways. */
function refuseSecondCopies(entry: string, file: string): void {
  const wanted = peersOf(file);
  const problems = SHARED.flatMap((name) => {
    const [own, other] = [packageFolder(name, fileURLToPath(import.meta.url)), packageFolder(name, file)];
    if (own === undefined || other === undefined || own === other) return [];
    const asked = wanted[name] === undefined ? '' : ` (it asks for ${wanted[name]})`;
    const [first, second] = [own, other].map((folder) => `${versionOf(folder)} in ${folder}`);
    const message = `[plugin ${entry}] would load a second copy of ${name}: ${second} beside ${first}${asked}.`;
    return new LlmxError('LLMX_CORE_DUPLICATE', message, {
      hint: 'Install llmx and all its plugins in one folder, in versions that fit together, and run llmx from there.',
      plugin: entry,
    });
  });
  const [first, ...others] = problems;
  if (first !== undefined) throw new LlmxProblems([first, ...others]);
}

/** The real folder of a package as an import in `file` would find it. */
function packageFolder(name: string, file: string): string | undefined {
  try {
    return dirname(realpathSync(createRequire(file).resolve(`${name}/package.json`)));
  } catch {
    return undefined;
  }
}

interface Manifest {
  readonly version?: string;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

function readManifest(folder: string): Manifest {
  try {
    return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
  } catch {
    return {}; // it only tells versions here
  }
}

const versionOf = (folder: string): string => readManifest(folder).version ?? 'no version';

/** Peer dependencies of the package that `file` belongs to. */
function peersOf(file: string): Readonly<Record<string, string>> {
  let folder = dirname(file);
  while (!existsSync(join(folder, 'package.json'))) {
    const above = dirname(folder);
    if (above === folder) return {};
    folder = above;
  }
  return readManifest(folder).peerDependencies ?? {};
}
