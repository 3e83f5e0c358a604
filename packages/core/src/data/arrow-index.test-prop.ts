import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { LlmxError } from '../errors/index.ts';
import { readArrowIndex } from './arrow-index.ts';
import { bytesTokenizer } from './bytes-tokenizer.ts';
import { DatasetWriter } from './dataset-writer.ts';

const tokenizer = bytesTokenizer.build({}, { create: () => expect.unreachable() });
let root: string;
let file: string;
let intact: Buffer;
beforeAll(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-arrow-'));
  file = path.join(root, 'train-00000.arrow');
  const writer = new DatasetWriter(
    root,
    { name: 'bytes', instance: tokenizer },
    { batchTokens: 20, shardTokens: 1000 },
  );
  for (const source of ['a', 'b', 'c']) writer.add('train', { ids: new Uint16Array(12), bytes: 12, source });
  writer.finish();
  intact = fs.readFileSync(file);
});
afterAll(() => fs.rmSync(root, { recursive: true }));

/** Indexes changed content; an error must be one that tells the user of damage. */
function indexOf(content: Uint8Array) {
  fs.writeFileSync(file, content);
  const descriptor = fs.openSync(file, 'r');
  try {
    return readArrowIndex(descriptor, content.length, file);
  } catch (error) {
    expect(LlmxError.is(error) && error.code).toBe('LLMX_DATASET_DAMAGED');
    return undefined;
  } finally {
    fs.closeSync(descriptor);
  }
}

test('changed bytes give an index within the file, or damage', () => {
  const position = fc.nat({ max: 4000 });
  const change = fc.record({ position, value: fc.constantFrom(0, 1, 2, 0x7f, 0x80, 0xff) });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const content = Buffer.from(intact);
      for (const { position: at, value } of changes) content[at % content.length] = value;
      const width = 2;
      for (const { tokens, offset } of indexOf(content)?.batches ?? [])
        expect(offset + tokens * width).toBeLessThanOrEqual(content.length);
    }),
    { numRuns: 1500 },
  );
});

test('a file cut off anywhere is damaged', () => {
  for (let size = 0; size < intact.length; size += size > intact.length - 20 ? 1 : 9)
    expect(indexOf(intact.subarray(0, size))).toBeUndefined();
  expect(indexOf(intact)?.documents).toBe(3);
});
