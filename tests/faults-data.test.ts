// Damaged and changing datasets under a run.
import fs from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { openDataset } from '@llmx/core';

import { failureOf, TinyRuns } from './support/tiny-run.ts';

let runs: TinyRuns;
let data: string;
let shard: string;
beforeAll(async () => {
  runs = await TinyRuns.create();
  data = path.join(runs.folder, 'data');
  shard = path.join(data, 'train-00000.arrow');
  fs.cpSync(data, path.join(runs.folder, 'good'), { recursive: true });
}, 60_000);
afterAll(() => runs.remove());

const said = (text: string): string => text.replaceAll(runs.folder, '<folder>');
function mend(): void {
  fs.rmSync(data, { recursive: true });
  fs.cpSync(path.join(runs.folder, 'good'), data, { recursive: true });
}

/** Reads windows until a shard is looked at again. */
function readOn(): void {
  const reader = openDataset(data).split('train');
  try {
    fs.utimesSync(shard, 1, 1); // as if written to at another time
    for (let reads = 0; reads < 1100; reads++) reader.read(0, 16);
  } finally {
    reader.close();
  }
}

test('a shard that is written to while a run reads it is noticed', () => {
  expect(readOn).toThrow(`"${shard}" is damaged: it has been changed since it was opened.`);
  mend();
});

test('an id beyond the vocabulary is named with its place', async () => {
  const bytes = fs.readFileSync(shard);
  const text = Buffer.from(Uint16Array.from(Buffer.from('sheep and')).buffer);
  const place = bytes.indexOf(text);
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) bytes.writeUInt16LE(999, at);
  fs.writeFileSync(shard, bytes);
  const error = said(await failureOf(runs.train('foreign')));
  expect(error).toMatch(
    /^LLMX_DATASET_DAMAGED: "<folder>\/data\/train-00000.arrow" is damaged: the id at byte \d+ is 999, the vocabulary has 257\.$/,
  );
  const byte = Number(/byte (\d+)/.exec(error)?.[1]);
  expect(byte).toBeGreaterThanOrEqual(place);
  expect(bytes.readUInt16LE(byte)).toBe(999);
  mend();
});

test('a shard cut off after it was opened is named with the byte where it ends', () => {
  const reader = openDataset(data).split('train');
  fs.truncateSync(shard, 100);
  expect(() => reader.read(0, 16)).toThrow(/ends before byte \d+, where tokens should be/);
  reader.close();
  mend();
});

test('on request every shard is compared with its hash before the first step', async () => {
  const bytes = fs.readFileSync(shard);
  bytes[bytes.indexOf('sheep'[0]!, 1000)]! ^= 1;
  fs.writeFileSync(shard, bytes);
  const error = said(await failureOf(runs.train('verified', [], {}, { verifyData: true })));
  expect(error).toMatch(/^LLMX_DATASET_DAMAGED: "<folder>\/data\/train-00000.arrow" is damaged: its SHA-256 is not/);
  expect(fs.existsSync(runs.path('verified'))).toBe(false);
  mend();
  expect(await runs.train('verified', ['train.steps=1'], {}, { verifyData: true })).toMatchObject({ steps: 1 });
});

test('a run does not go on with another dataset of the same name', async () => {
  await runs.train('other', ['train.tokens=300']);
  fs.appendFileSync(path.join(runs.folder, '0.txt'), '.');
  await runs.prepare({ out: 'data', force: true, valFraction: 0.3 });
  const error = said(await failureOf(runs.train('other')));
  expect(error.replaceAll(/[0-9a-f]{12}/g, '<hash>')).toMatchInlineSnapshot(
    `"LLMX_RESUME_MISMATCH: The dataset "<folder>/data" is not the one that the run was started with: its fingerprint is <hash>, it was <hash>."`,
  );
  mend();
  expect(await runs.train('other')).toMatchObject({ steps: 12 });
});
