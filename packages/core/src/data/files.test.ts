import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { makeFolders, readFully, syncDirectory, writeFully } from './files.ts';

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

describe('makeFolders', () => {
  let root: string;
  beforeEach(() => void (root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-files-')))));
  afterEach(() => fs.rmSync(root, { recursive: true }));

  test('creates what is missing, and says from where on', () => {
    expect(makeFolders(path.join(root, 'a/b/c'))).toBe(path.join(root, 'a'));
    expect(makeFolders(path.join(root, 'a/b/d'))).toBe(path.join(root, 'a/b/d'));
    expect(makeFolders(path.join(root, 'a/b/d'))).toBeUndefined();
    expect(fs.readdirSync(path.join(root, 'a/b')).toSorted()).toEqual(['c', 'd']);
  });

  test('fails where a file or a link to nothing is in the way', () => {
    fs.writeFileSync(path.join(root, 'file'), '');
    fs.symlinkSync('nothing', path.join(root, 'link'));
    for (const name of ['file', 'file/a', 'file/a/b', 'link', 'link/a'])
      expect(() => makeFolders(path.join(root, name)), name).toThrow(/ENOTDIR|EEXIST|ENOENT/);
  });

  // Node's recursive mkdir never returns here; skipped where there is no /proc.
  test.skipIf(!fs.existsSync('/proc/self'))('fails below a folder that can hold none', () => {
    expect(() => makeFolders('/proc/no/such')).toThrow('ENOENT');
  });
});

test('syncing what is not there', () => {
  expect(() => syncDirectory('/no/such/folder')).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: Could not sync "/no/such/folder": no such file or directory (ENOENT).]`,
  );
});
