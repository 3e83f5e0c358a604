import fs from 'node:fs';
import { extname, join, resolve } from 'node:path';

import { ioError, LlmxError } from '../errors/index.ts';
import { onFile } from './files.ts';

/** `text`: one document a file. `lines`: JSONL, one document a line. */
type InputFormat = 'text' | 'lines';
const FORMATS: Readonly<Record<string, InputFormat>> = { '.txt': 'text', '.md': 'text', '.jsonl': 'lines' };
const EXTENSIONS = '.txt, .md or .jsonl';

/** A file to read; `name` is its path as the user would write it. */
export interface InputFile {
  readonly path: string;
  readonly name: string;
  readonly format: InputFormat;
  readonly size: number;
}
export type Input = InputFile | 'stdin';

/**
 * The files that paths, folders, globs and `-` stand for, in the order given; inside folders and globs in order of
 * names. A file that is meant twice is read once.
 *
 * @throws LlmxError `LLMX_INPUT_MISSING`, `LLMX_INPUT_EMPTY`, `LLMX_INPUT_INVALID`, `LLMX_IO_FAILED`
 */
export async function listInputs(given: readonly string[], cwd: string): Promise<Input[]> {
  const inputs = new Map<string, Input>();
  for (const argument of given) {
    if (argument === '-') {
      inputs.set('-', 'stdin');
      continue;
    }
    for (const name of await namesOf(argument, cwd)) {
      const key = onFile(name, 'read', () => fs.realpathSync(resolve(cwd, name)));
      if (!inputs.has(key)) inputs.set(key, inputFile(name, cwd));
    }
  }
  return [...inputs.values()];
}

async function namesOf(argument: string, cwd: string): Promise<string[]> {
  const found = onFile(argument, 'read', () => fs.statSync(resolve(cwd, argument), { throwIfNoEntry: false }));
  if (found?.isDirectory()) {
    const names = [...walk(argument, cwd)];
    if (names.length > 0) return names;
    throw new LlmxError('LLMX_INPUT_EMPTY', `The folder "${argument}" holds no ${EXTENSIONS} files.`, {
      hint: 'Name another folder, or the files themselves.',
    });
  }
  return found === undefined ? matches(argument, cwd) : [argument];
}

/** Files of a known format below a folder. Links to files count, links to folders do not: they could lead in circles. */
function* walk(name: string, cwd: string): Generator<string> {
  const entries = onFile(name, 'read', () => fs.readdirSync(resolve(cwd, name), { withFileTypes: true }));
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const inside = join(name, entry.name);
    if (entry.name.startsWith('.')) continue;
    if (entry.isDirectory()) yield* walk(inside, cwd);
    else if (formatOf(inside) !== undefined && statOf(inside, cwd).isFile()) yield inside;
  }
}

async function matches(pattern: string, cwd: string): Promise<string[]> {
  const { default: glob } = await import('fast-glob');
  if (!glob.isDynamicPattern(pattern))
    throw new LlmxError('LLMX_INPUT_MISSING', `There is no file or folder "${pattern}" in "${cwd}".`, {
      hint: 'Check the path; put globs in quotes, so that the shell hands them on as they are.',
    });
  const names = await glob(pattern, { cwd }).catch((cause: unknown) => {
    throw ioError(cause, pattern, 'read');
  });
  if (names.length > 0) return names.toSorted();
  throw new LlmxError('LLMX_INPUT_EMPTY', `No file in "${cwd}" matches "${pattern}".`, { hint: 'Check the pattern.' });
}

function inputFile(name: string, cwd: string): InputFile {
  const format = formatOf(name);
  const found = statOf(name, cwd);
  if (format !== undefined && found.isFile()) return { path: resolve(cwd, name), name, format, size: found.size };
  throw new LlmxError('LLMX_INPUT_INVALID', `"${name}" is not a ${EXTENSIONS} file.`, {
    hint: 'Name only such files, narrow the glob, or name a folder, of which only they are taken.',
  });
}

const statOf = (name: string, cwd: string): fs.Stats => onFile(name, 'read', () => fs.statSync(resolve(cwd, name)));

const formatOf = (name: string): InputFormat | undefined => FORMATS[extname(name).toLowerCase()];
