import fs from 'node:fs';

import { describe, expect, test } from 'vitest';

import { ioError } from './io.ts';
import { LlmxError } from './llmx-error.ts';

const system = (code: string, text: string) =>
  Object.assign(new Error(`${code}: ${text}, write`), { code, errno: -1, syscall: 'write' });

function check(error: Error) {
  expect(LlmxError.is(error)).toBe(true);
  const { code, message, hint } = error as LlmxError;
  return { code, message, hint };
}

describe('ioError', () => {
  test('no room', () => {
    expect(check(ioError(system('ENOSPC', 'no space left on device'), 'd/a.arrow', 'write'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_DISK_FULL",
        "hint": "Free some space, or choose a folder on another disk.",
        "message": "Could not write "d/a.arrow": the disk is full (ENOSPC).",
      }
    `);
    expect(check(ioError(system('EDQUOT', 'disk quota exceeded'), 'd/a.arrow', 'write'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_DISK_FULL",
        "hint": "Remove files that count against the quota, or choose a folder elsewhere.",
        "message": "Could not write "d/a.arrow": the disk quota is used up (EDQUOT).",
      }
    `);
    expect(check(ioError(system('EFBIG', 'file too large'), 'd/a.arrow', 'write'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_DISK_FULL",
        "hint": "Raise the file-size limit (ulimit -f), or choose a folder elsewhere.",
        "message": "Could not write "d/a.arrow": it would exceed the largest file size allowed (EFBIG).",
      }
    `);
  });

  test('other reasons', () => {
    let cause: unknown;
    try {
      fs.openSync('/no/such/folder/file', 'r');
    } catch (error) {
      cause = error;
    }
    const error = ioError(cause, '/no/such/folder/file', 'read');
    expect(check(error)).toMatchInlineSnapshot(`
      {
        "code": "LLMX_IO_FAILED",
        "hint": "Check that the path is right and that its permissions allow this.",
        "message": "Could not read "/no/such/folder/file": no such file or directory (ENOENT).",
      }
    `);
    expect(error.cause).toBe(cause);
  });

  test('what is no file error stays itself', () => {
    const told = new LlmxError('LLMX_INPUT_EMPTY', 'Nothing.');
    const defect = new TypeError('x is undefined');
    expect(ioError(told, 'a', 'read')).toBe(told);
    expect(ioError(defect, 'a', 'read')).toBe(defect);
    expect(ioError('text', 'a', 'read').message).toBe('text');
  });
});
