import fs from 'node:fs';
import { dirname, resolve as absolute } from 'node:path';

import { ioError, LlmxError } from '../errors/index.ts';

/**
 * Writes all of `bytes`; what a short write left over is written next, so that the reason it was short shows.
 *
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function writeFully(descriptor: number, bytes: Uint8Array, path: string): void {
  let written = 0;
  while (written < bytes.byteLength) {
    const count = onFile(path, 'write', () => fs.writeSync(descriptor, bytes, written));
    if (count === 0)
      throw new LlmxError('LLMX_DISK_FULL', `Could not write "${path}": the system took none of the data.`, {
        hint: 'Free some space, or choose a folder on another disk.',
      });
    written += count;
  }
}

/**
 * Fills `target` from `position` of the file on; returns the bytes read, fewer only where the file ends.
 */
export function readFully(descriptor: number, target: Uint8Array, position: number): number {
  let done = 0;
  while (done < target.byteLength) {
    const count = fs.readSync(descriptor, target, done, target.byteLength - done, position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Runs a file operation; a failure is told with the path and what was tried. */
export function onFile<T>(path: string, doing: string, operation: () => T): T {
  try {
    return operation();
  } catch (cause) {
    throw ioError(cause, path, doing);
  }
}

/**
 * Why what lies at `path` is no file or folder of its own, if so; `undefined` where nothing lies there. Datasets, runs and
 * checkpoints come from elsewhere: a link in one may lead anywhere, and reading a pipe or a device may never end.
 *
 * @returns a clause, e.g. `it is a link`
 */
export function foreignReason(path: string, kind: 'file' | 'folder' = 'file'): string | undefined {
  const found = onFile(path, 'read', () => fs.lstatSync(path, { throwIfNoEntry: false }));
  if (found === undefined || (kind === 'file' ? found.isFile() : found.isDirectory())) return undefined;
  return found.isSymbolicLink() ? `it is a link, which may lead anywhere, and no ${kind}` : `it is no ${kind}`;
}

const isFolder = (path: string): boolean => fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/**
 * Creates a folder and those above it that are missing. Node's own recursive form never ends below a folder that exists
 * and answers every attempt with "no such file", as /proc does.
 *
 * @returns the outermost folder that was created, if any
 * @throws Error of the file system
 */
export function makeFolders(path: string): string | undefined {
  const missing = [absolute(path)];
  for (let above = dirname(missing[0]!); !fs.existsSync(above); above = dirname(above)) {
    if (above === missing.at(-1)) break; // a drive that is not there
    missing.push(above);
  }
  let created: string | undefined;
  for (const folder of missing.toReversed()) {
    try {
      fs.mkdirSync(folder);
      created ??= folder;
    } catch (cause) {
      if (!isFolder(folder)) throw cause; // else it was there, or another process was faster
    }
  }
  return created;
}

/** Makes renames and new names in a folder last through a power cut, where the system can. */
export function syncDirectory(path: string): void {
  let descriptor: number | undefined;
  try {
    descriptor = fs.openSync(path, 'r');
    fs.fsyncSync(descriptor);
  } catch (cause) {
    // Windows cannot open folders, some network file systems cannot sync them; there is nothing else to try.
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code !== 'EPERM' && code !== 'EISDIR' && code !== 'EINVAL' && code !== 'ENOTSUP')
      throw ioError(cause, path, 'sync');
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}

/** Lets signals, timers and the terminal have their turn between pieces of blocking work. */
export const nextTurn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });
