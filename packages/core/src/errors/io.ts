import { LlmxError } from './llmx-error.ts';

/** Why a file cannot grow, by error number, and what helps. */
const NO_ROOM: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  ENOSPC: ['the disk is full', 'Free some space, or choose a folder on another disk.'],
  EDQUOT: ['the disk quota is used up', 'Remove files that count against the quota, or choose a folder elsewhere.'],
  EFBIG: [
    'it would exceed the largest file size allowed',
    'Raise the file-size limit (ulimit -f), or choose a folder elsewhere.',
  ],
};

/** `no such file or directory (ENOENT)` of Node's `ENOENT: no such file or directory, open '/x'`. */
const reasonOf = (message: string, code: string): string => {
  const reason = /^[A-Z0-9]+: ([^,]+)/.exec(message)?.[1] ?? message;
  return `${reason} (${code})`;
};

/**
 * The error to throw where a file operation failed: `LLMX_DISK_FULL` where there was no room for the data (full disk,
 * quota, file-size limit), `LLMX_IO_FAILED` for other causes with an error number, and `cause` itself where it is an
 * LlmxError already or has nothing to do with files. `doing` is a verb: `write`, `read`, `create`.
 */
export function ioError(cause: unknown, path: string, doing: string): Error {
  if (!(cause instanceof Error)) return new Error(String(cause));
  if (LlmxError.is(cause) || !('syscall' in cause || 'errno' in cause)) return cause;
  const code = 'code' in cause ? String(cause.code) : 'unknown';
  const [noRoom, hint] = NO_ROOM[code] ?? [];
  if (noRoom !== undefined)
    return new LlmxError('LLMX_DISK_FULL', `Could not ${doing} "${path}": ${noRoom} (${code}).`, { hint, cause });
  return new LlmxError('LLMX_IO_FAILED', `Could not ${doing} "${path}": ${reasonOf(cause.message, code)}.`, {
    hint: 'Check that the path is right and that its permissions allow this.',
    cause,
  });
}
