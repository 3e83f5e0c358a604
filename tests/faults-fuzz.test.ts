// Spoilt files are refused in words or read as something valid: never a crash, a hang, or memory beyond their size.
import fs from 'node:fs';
import path from 'node:path';

import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import * as coreModule from '@llmx/core';
import {
  LlmxError,
  openDataset,
  readDatasetJson,
  readMetrics,
  readSafetensors,
  resolveConfig,
  resolveOptions,
} from '@llmx/core';

import { TinyRuns } from './support/tiny-run.ts';

/** Cases a kind; `npm run test:faults` has 10,000. */
const CASES = process.env['LLMX_TEST_FAULTS'] === undefined ? 60 : 10_000;
const TIME_MS = 240_000;

let runs: TinyRuns;
beforeAll(async () => {
  runs = await TinyRuns.create();
  await runs.train('whole', ['train.steps=4']);
}, 60_000);
afterAll(() => runs.remove());

/** What parsers tend to trip over. */
const PIECES = [
  '0',
  '-1',
  '1e999',
  '18446744073709551615',
  'null',
  'NaN',
  '{}',
  '[',
  '}',
  ',',
  '"',
  '\\u0000',
  '\0',
  '\n',
  ': ',
  '"../../x"',
  '"__proto__"',
  '"constructor"',
  '&a [*a, *a]',
  '*a',
  '!!js/function',
  '\u{1F600}',
  ' '.repeat(99),
];
const piece = fc.constantFrom(...PIECES);
/** A change at a place, given as a share of the file: bytes that are replaced, and by what. */
const change = fc.record({ at: fc.double({ min: 0, max: 0.999, noNaN: true }), drop: fc.nat(6), text: piece });
const changes = fc.array(change, { minLength: 1, maxLength: 4 });
type Changes = readonly { readonly at: number; readonly drop: number; readonly text: string }[];

/** `bytes` with the changes, all within the first `limit` of them; of the same length where that is `fixed`. */
function spoilt(bytes: Buffer, list: Changes, { limit = bytes.length, fixed = false } = {}): Buffer {
  return list.reduce((content, { at, drop, text }) => {
    const place = Math.floor(at * Math.min(limit, content.length));
    const insert = Buffer.from(text);
    if (!fixed) return Buffer.concat([content.subarray(0, place), insert, content.subarray(place + drop)]);
    const copy = Buffer.from(content);
    insert.copy(copy, place);
    return copy;
  }, bytes);
}

/** Runs `body`, whose failures must be in words; whether it was one. */
async function isRefused(body: () => unknown): Promise<boolean> {
  try {
    await body();
    return false;
  } catch (error) {
    expect(LlmxError.is(error), String((error as Error).stack)).toBe(true);
    expect((error as LlmxError).code).not.toBe('LLMX_INVARIANT');
    return true;
  }
}

/** Tries spoilt files; how many were refused. */
async function refusals(property: (list: Changes) => Promise<boolean>): Promise<number> {
  let refused = 0;
  const counted = async (list: Changes): Promise<void> => void (refused += Number(await property(list)));
  await fc.assert(fc.asyncProperty(changes, counted), { numRuns: CASES, seed: 1 });
  return refused;
}

test.for(['json', 'yaml'])('configurations, %s', { timeout: TIME_MS }, async (kind) => {
  const intact = fs.readFileSync(path.join(runs.folder, 'c.json'));
  const file = `spoilt.${kind}`;
  const options = resolveOptions({ host: runs.host(), coreModule });
  const refused = await refusals(async (list) => {
    fs.writeFileSync(path.join(runs.folder, file), spoilt(intact, list));
    return isRefused(() => resolveConfig({ ...options, file, sets: [] }));
  });
  expect(refused).toBeGreaterThan(0);
});

test('headers of safetensors', { timeout: TIME_MS }, async () => {
  const file = path.join(runs.checkpoint('whole', 4), 'model.safetensors');
  const intact = fs.readFileSync(file);
  const limit = 8 + Number(intact.readBigUInt64LE());
  const refused = await refusals(async (list) => {
    const content = spoilt(intact, list, { limit, fixed: list.length % 2 === 0 });
    fs.writeFileSync(file, content);
    return isRefused(() => {
      const read = [...readSafetensors(file).tensors.values()];
      const bytes = read.reduce((sum, { data }) => sum + data.byteLength, 0);
      expect(bytes).toBeLessThanOrEqual(2 * content.length); // types of two bytes are widened to four
    });
  });
  expect(refused).toBeGreaterThan(0);
});

test('footers of Arrow files', { timeout: TIME_MS }, async () => {
  const directory = path.join(runs.folder, 'data');
  const shard = path.join(directory, 'train-00000.arrow');
  const intact = fs.readFileSync(shard);
  const start = intact.length - 10 - intact.readInt32LE(intact.length - 10);
  const refused = await refusals(async (list) => {
    const footer = spoilt(intact.subarray(start), list, { fixed: true });
    fs.writeFileSync(shard, Buffer.concat([intact.subarray(0, start), footer]));
    return isRefused(() => {
      const reader = openDataset(directory).split('train');
      try {
        expect(reader.read(0, 16).length).toBe(16);
      } finally {
        reader.close();
      }
    });
  });
  expect(refused).toBeGreaterThan(0);
  fs.writeFileSync(shard, intact);
});

test('dataset.json', { timeout: TIME_MS }, async () => {
  const file = path.join(runs.folder, 'data', 'dataset.json');
  const intact = fs.readFileSync(file);
  const refused = await refusals(async (list) => {
    fs.writeFileSync(file, spoilt(intact, list));
    return isRefused(() => {
      const { splits } = readDatasetJson(path.dirname(file));
      for (const { shards } of Object.values(splits))
        for (const shard of shards) expect(path.basename(shard.file)).toBe(shard.file);
    });
  });
  expect(refused).toBeGreaterThan(0);
  fs.writeFileSync(file, intact);
});

test('metrics.jsonl', { timeout: TIME_MS }, async () => {
  const file = runs.path('whole', 'metrics.jsonl');
  const intact = fs.readFileSync(file);
  const refused = await refusals(async (list) => {
    fs.writeFileSync(file, spoilt(intact, list));
    return isRefused(() => readMetrics(file));
  });
  expect(refused).toBeGreaterThan(0);
});
