import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { expect, test } from 'vitest';

import { readFully, syncDirectory, writeFully } from './files.ts';

test.skipIf(!fs.existsSync('/dev/full'))('a full disk', () => {
  const descriptor = fs.openSync('/dev/full', 'w');
  expect(() => writeFully(descriptor, Buffer.from('abc'), 'out/a.arrow')).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: Could not write "out/a.arrow": the disk is full (ENOSPC).]`,
  );
  fs.closeSync(descriptor);
});

test('reads up to the end', () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-files-'));
  const file = path.join(root, 'a');
  const descriptor = fs.openSync(file, 'w+');
  writeFully(descriptor, Buffer.from('0123456789'), file);
  const target = Buffer.alloc(6);
  expect(readFully(descriptor, target, 2)).toBe(6);
  expect(target.toString()).toBe('234567');
  expect(readFully(descriptor, target, 7)).toBe(3);
  fs.closeSync(descriptor);
  fs.rmSync(root, { recursive: true });
});

test('syncing what is not there', () => {
  expect(() => syncDirectory('/no/such/folder')).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: Could not sync "/no/such/folder": no such file or directory (ENOENT).]`,
  );
});
