import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';

import { ioError, LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import { DATASET_FILE } from './dataset-json.ts';
import { makeFolders, onFile, syncDirectory } from './files.ts';

const ELSEWHERE = 'Choose another --out.';

/** A folder that comes into being as a whole or not at all. */
export interface OutputDirectory {
  /** Where to write until `commit`. */
  readonly path: string;
  /**
   * Gives the folder its name.
   *
   * @throws LlmxError `LLMX_OUTPUT_EXISTS`, `LLMX_IO_FAILED`
   */
  commit(): void;
  /** Removes what was written; nothing is left behind. */
  discard(): void;
}

/**
 * Creates a temporary folder beside `out`, named after it and this process, and removes those of processes that died.
 * With `force`, a dataset at `out` is replaced when the new one is complete.
 *
 * @throws LlmxError `LLMX_OUTPUT_EXISTS`, `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function createOutputDirectory(out: string, force: boolean, host: Host): OutputDirectory {
  const parent = dirname(out);
  const owner = ownerName(host);
  const path = `${out}.partial-${owner}`;
  recover(out, host);
  checkFree(out, force);
  const created = onFile(parent, 'create', () => makeFolders(parent));
  const discard = (): void => {
    fs.rmSync(path, { recursive: true, force: true });
    if (created !== undefined) removeEmpty(parent, created);
  };
  try {
    fs.mkdirSync(path);
  } catch (cause) {
    if (created !== undefined) removeEmpty(parent, created);
    throw ioError(cause, path, 'create');
  }
  const commit = (): void => {
    checkFree(out, force);
    exchange(path, out, `${out}.replaced-${owner}`);
  };
  return { path, commit, discard };
}

/** Puts `complete` in the place of `out`; what was there goes by the name `old` until it is removed. */
function exchange(complete: string, out: string, old: string): void {
  const replaces = fs.existsSync(out);
  if (replaces) onFile(out, 'replace', () => fs.renameSync(out, old));
  try {
    fs.renameSync(complete, out);
  } catch (cause) {
    if (replaces) fs.renameSync(old, out);
    throw ioError(cause, out, 'create');
  }
  syncDirectory(dirname(out));
  if (replaces) onFile(old, 'remove', () => fs.rmSync(old, { recursive: true }));
}

/** @throws LlmxError `LLMX_OUTPUT_EXISTS` unless `out` is free, an empty folder, or a dataset that may be replaced */
function checkFree(out: string, force: boolean): void {
  const found = onFile(out, 'read', () => fs.statSync(out, { throwIfNoEntry: false }));
  if (found === undefined) return;
  const entries = found.isDirectory() ? onFile(out, 'read', () => fs.readdirSync(out)) : undefined;
  if (entries?.length === 0) return;
  if (entries?.includes(DATASET_FILE) !== true)
    throw new LlmxError('LLMX_OUTPUT_EXISTS', `"${out}" exists already and is not a dataset.`, { hint: ELSEWHERE });
  const foreign = entries.find((name) => name !== DATASET_FILE && !name.endsWith('.arrow'));
  if (foreign !== undefined)
    throw new LlmxError('LLMX_OUTPUT_EXISTS', `"${out}" holds a dataset, but also "${foreign}".`, { hint: ELSEWHERE });
  if (force) return;
  throw new LlmxError('LLMX_OUTPUT_EXISTS', `There is a dataset at "${out}" already.`, {
    hint: 'Choose another --out, or replace it with --force.',
  });
}

/** Clears away what killed processes left beside `out`. */
function recover(out: string, host: Host): void {
  const parent = dirname(out);
  if (!fs.existsSync(parent)) return;
  for (const name of onFile(parent, 'read', () => fs.readdirSync(parent))) {
    if (!name.startsWith(basename(out))) continue;
    const [, purpose, owner] = /^\.(partial|replaced)-(.+)$/.exec(name.slice(basename(out).length)) ?? [];
    if (owner === undefined || !isDead(owner, host)) continue;
    const left = join(parent, name);
    try {
      // Killed between the two renames of a replacement: the old dataset is still whole.
      if (purpose === 'replaced' && !fs.existsSync(out)) fs.renameSync(left, out);
      else fs.rmSync(left, { recursive: true, force: true });
    } catch (cause) {
      host.log('warn', `${ioError(cause, left, 'remove').message} A process that was killed left it behind.`);
    }
  }
}

/** Tells processes apart even when numbers are used again or machines share a disk. */
const ownerName = ({ process: { pid, started, hostname } }: Host): string =>
  [String(pid), started, hostname].map(encodeURIComponent).join(',');

function isDead(owner: string, host: Host): boolean {
  const [pid, started, hostname] = owner.split(',').map(decoded);
  if (pid === undefined || started === undefined || hostname !== host.process.hostname) return false;
  return /^\d+$/.test(pid) && !host.process.isAlive(Number(pid), started);
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined; // not a name of ours
  }
}

/** Removes `folder` and the folders above it up to `last`, as long as they are empty. */
function removeEmpty(folder: string, last: string): void {
  for (let current = folder; current.length >= last.length; current = dirname(current)) {
    if (fs.readdirSync(current).length > 0) return;
    fs.rmdirSync(current);
  }
}
