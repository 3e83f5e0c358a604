import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, join, resolve } from 'node:path';

import { LlmxError } from '../errors/index.ts';
import { importModule } from './import-module.ts';
import { absolutePaths } from './paths.ts';
import { reasonOf, show } from './problems.ts';
import { isTree, merge, type Tree } from './tree.ts';
import { parseYaml } from './yaml.ts';

const EXTENSIONS = ['.yaml', '.yml', '.json', '.js', '.mjs', '.ts'];

export interface LoadedConfig {
  /** What the file and those it extends say; `extends` is gone, paths are absolute. */
  readonly tree: Tree;
  /** Absolute path of the file. */
  readonly file: string;
}

/**
 * Reads the configuration in `file` (relative to `cwd`), or else `llmx.config.{yaml,yml,json,js,mjs,ts}` of `cwd`
 * itself: folders above are not searched, since a run writes to the folder it is started in.
 *
 * @throws LlmxError `LLMX_CONFIG_MISSING`, `LLMX_CONFIG_INVALID`
 */
export async function loadConfig(file: string | undefined, cwd: string): Promise<LoadedConfig> {
  const path = file === undefined ? findConfig(cwd) : resolve(cwd, file);
  return { tree: await readConfig(path, []), file: path };
}

function findConfig(cwd: string): string {
  const found = EXTENSIONS.map((extension) => join(cwd, `llmx.config${extension}`)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new LlmxError('LLMX_CONFIG_MISSING', `There is no llmx.config.yaml in ${cwd}.`, {
    hint: 'Create one with "llmx init", or give the path of a configuration file.',
  });
}

/** `extending` are the files on the way here, outermost first. */
async function readConfig(file: string, extending: readonly string[]): Promise<Tree> {
  if (extending.includes(file)) {
    const circle = [...extending, file].map((path) => basename(path)).join(' -> ');
    throw new LlmxError('LLMX_CONFIG_INVALID', `The configuration ${file} extends itself: ${circle}.`);
  }
  const { extends: bases, ...settings } = await parseConfig(file, readText(file, extending.at(-1)));
  let merged: unknown = {};
  for (const base of basePaths(bases, file)) merged = merge(merged, await readConfig(base, [...extending, file]));
  return merge(merged, absolutePaths(settings, dirname(file))) as Tree;
}

function basePaths(bases: unknown, file: string): string[] {
  const list: unknown[] = Array.isArray(bases) ? bases : bases === undefined ? [] : [bases];
  return list.map((base) => {
    if (typeof base === 'string' && base !== '') return resolve(dirname(file), base);
    throw new LlmxError(
      'LLMX_CONFIG_INVALID',
      `extends is ${show(bases)} in ${file}: expected a path or a list of paths.`,
    );
  });
}

function readText(file: string, extendedBy: string | undefined): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw unreadable(file, extendedBy, cause as NodeJS.ErrnoException);
  }
}

function unreadable(file: string, extendedBy: string | undefined, cause: NodeJS.ErrnoException): LlmxError {
  const what =
    extendedBy === undefined ? `The configuration ${file}` : `The file ${file}, which ${extendedBy} extends,`;
  if (cause.code !== 'ENOENT') {
    const hint = 'Give the path of a file that can be read.';
    return new LlmxError('LLMX_CONFIG_MISSING', `${what} could not be read: ${reasonOf(cause)}.`, { hint, cause });
  }
  const hint =
    extendedBy === undefined
      ? 'Create one with "llmx init".'
      : 'Paths in extends are relative to the file they stand in.';
  return new LlmxError('LLMX_CONFIG_MISSING', `${what} does not exist.`, { hint, cause });
}

async function parseConfig(file: string, text: string): Promise<Tree> {
  if (text.trim() === '') return {};
  const content = await parserOf(file)(file, text);
  if (content === undefined || content === null) return {}; // nothing but comments
  if (isTree(content)) return content;
  throw new LlmxError(
    'LLMX_CONFIG_INVALID',
    `The configuration ${file} is ${show(content)}: expected settings as key: value.`,
  );
}

type Parser = (file: string, text: string) => unknown;

function parserOf(file: string): Parser {
  const extension = extname(file);
  if (['.yaml', '.yml', '.json', ''].includes(extension))
    return (_, text) => parseYaml(text, `The configuration ${file}`);
  if (EXTENSIONS.includes(extension)) return parseModule;
  throw new LlmxError('LLMX_CONFIG_INVALID', `The configuration ${file} is of an unknown type "${extension}".`, {
    hint: `Use one of ${EXTENSIONS.join(', ')}.`,
  });
}

async function parseModule(file: string): Promise<unknown> {
  const settings = await importModule(file).catch((cause: unknown) => {
    throw new LlmxError('LLMX_CONFIG_INVALID', `The configuration ${file} could not be loaded: ${reasonOf(cause)}.`, {
      cause,
    });
  });
  if (settings !== undefined) return settings;
  const hint = 'It must say: export default { ... }.';
  throw new LlmxError('LLMX_CONFIG_INVALID', `The configuration ${file} has no default export.`, { hint });
}
