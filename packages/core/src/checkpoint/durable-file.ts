/** Files that are whole or absent, whatever happens to the process that writes them. */
import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { ioError } from '../errors/index.ts';

/** Names of files and folders that are not complete, and may be removed by whoever owns the folder, start with this. */
export const PARTIAL = '.partial-';

// One system call or hash update takes at most 2^31 - 1 bytes.
const PIECE_BYTES = 1 << 24;

/** Size and content of a file. */
export interface FileDigest {
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
}

function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += PIECE_BYTES) yield bytes.subarray(start, start + PIECE_BYTES);
}

/** Writes all of `bytes` at the file's position, continuing after short writes. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length;) {
    const count = fs.writeSync(fd, bytes, written, Math.min(PIECE_BYTES, bytes.length - written));
    // A regular file takes at least one byte or fails; a file system that does neither has no room.
    if (count === 0)
      throw Object.assign(new Error('ENOSPC: nothing was written'), { code: 'ENOSPC', syscall: 'write' });
    written += count;
  }
}

/** Fills `target` from `position` on; returns the bytes read, fewer than asked where the file ends. */
export function readAll(fd: number, target: Uint8Array, position: number): number {
  let done = 0;
  while (done < target.length) {
    const count = fs.readSync(fd, target, done, Math.min(PIECE_BYTES, target.length - done), position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Error codes of systems that cannot sync a folder (Windows, some network file systems). */
const NO_DIRECTORY_SYNC = new Set(['EACCES', 'EINVAL', 'EISDIR', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EPERM']);

/** Makes renames and removals inside a folder survive a power failure. */
export function syncDirectory(directory: string): void {
  let fd: number | undefined;
  try {
    fd = fs.openSync(directory, 'r');
    fs.fsyncSync(fd);
  } catch (error) {
    if (!NO_DIRECTORY_SYNC.has(String((error as NodeJS.ErrnoException).code))) throw error;
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}

/** Removes a file or folder that did not come to be, where that is possible; the reason why it did not matters more. */
export function discard(target: string): void {
  try {
    fs.rmSync(target, { recursive: true, force: true });
  } catch {
    // Its name says that it is not complete; it goes the next time the folder is put in order.
  }
}

function writePieces(fd: number, content: Iterable<Uint8Array | string>): FileDigest {
  const hash = createHash('sha256');
  let bytes = 0;
  for (const part of content) {
    for (const piece of pieces(typeof part === 'string' ? Buffer.from(part) : part)) {
      writeAll(fd, piece);
      hash.update(piece);
      bytes += piece.length;
    }
  }
  fs.fsyncSync(fd);
  return { bytes, sha256: hash.digest('hex') };
}

/**
 * Writes a file piece by piece, hashing on the way, and syncs it. A file that could not be written whole is removed.
 *
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function writeSynced(file: string, content: Iterable<Uint8Array | string>): FileDigest {
  let fd: number | undefined;
  try {
    fd = fs.openSync(file, 'w');
    return writePieces(fd, content);
  } catch (cause) {
    if (fd !== undefined) discard(file);
    throw ioError(cause, file, 'write');
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}

/**
 * Puts `text` in the place of a file, which always holds the old or the new text whole.
 *
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function replaceFile(file: string, text: string): void {
  const directory = path.dirname(file);
  const partial = path.join(directory, `${PARTIAL}${path.basename(file)}-${randomUUID()}`);
  writeSynced(partial, [text]);
  try {
    fs.renameSync(partial, file);
    syncDirectory(directory);
  } catch (cause) {
    discard(partial);
    throw ioError(cause, file, 'write');
  }
}

/** Removes what an interrupted process left in a folder; only the folder's owner may call this. */
export function removePartial(directory: string): void {
  for (const name of fs.readdirSync(directory)) {
    if (name.startsWith(PARTIAL)) fs.rmSync(path.join(directory, name), { recursive: true, force: true });
  }
}

/** Reads a whole file to learn its digest, in constant memory. */
export function digestFile(file: string): FileDigest {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(1 << 20);
  const fd = fs.openSync(file, 'r');
  try {
    let bytes = 0;
    for (let count; (count = fs.readSync(fd, buffer)) > 0; bytes += count) hash.update(buffer.subarray(0, count));
    return { bytes, sha256: hash.digest('hex') };
  } finally {
    fs.closeSync(fd);
  }
}
