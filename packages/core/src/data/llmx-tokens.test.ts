import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { LlmxError } from '../errors/index.ts';
import type { Tokenizer } from '../plugin/types.ts';
import { readArrowIndex } from './arrow-index.ts';
import { bytesTokenizer } from './bytes-tokenizer.ts';
import { datasetFingerprint, type DatasetJson } from './dataset-json.ts';
import { DatasetWriter } from './dataset-writer.ts';
import { llmxTokens, openDataset, verifyDataset } from './llmx-tokens.ts';

const bytes = bytesTokenizer.build({}, { create: () => expect.unreachable() });
const TEXTS = Array.from({ length: 60 }, (_, index) => `Document ${index}, ${'word '.repeat(index % 7)}`);
const FIXTURE = fileURLToPath(new URL('fixtures/pyarrow', import.meta.url));

let root: string;
let directory: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-tokens-'));
  directory = path.join(root, 'data');
});
afterEach(() => fs.rmSync(root, { recursive: true }));

/** Small batches and shards, so that a few texts fill several. */
function write(texts: readonly string[], tokenizer: Tokenizer = bytes): DatasetJson {
  fs.mkdirSync(directory);
  const writer = new DatasetWriter(
    directory,
    { name: 'bytes', instance: tokenizer },
    { batchTokens: 64, shardTokens: 500 },
  );
  for (const [index, text] of texts.entries()) {
    const ids = tokenizer.encode(Buffer.from(text));
    writer.add(index % 10 === 9 ? 'val' : 'train', { ids, bytes: Buffer.byteLength(text), source: `${index}.txt` });
  }
  return writer.finish();
}

const idsOf = (texts: readonly string[]) => texts.flatMap((text) => [...Buffer.from(text), 256]);
const trainTexts = TEXTS.filter((_, index) => index % 10 !== 9);

/** Changes dataset.json, keeping its fingerprint right unless the change sets one. */
function edit(change: (dataset: DatasetJson) => void): void {
  const file = path.join(directory, 'dataset.json');
  const dataset = JSON.parse(fs.readFileSync(file, 'utf8')) as DatasetJson;
  const before = dataset.fingerprint;
  change(dataset);
  if (dataset.fingerprint === before) dataset.fingerprint = datasetFingerprint(dataset);
  fs.writeFileSync(file, JSON.stringify(dataset));
}

/** Code and message of the error, with the folder of the test taken out. */
function failure(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (LlmxError.is(error)) return `${error.code}: ${error.message} ${error.hint}`.replaceAll(root, '');
    throw error;
  }
  return 'no error';
}

describe('writing and reading', () => {
  test('any window comes back, over the limits of batches and shards', () => {
    const dataset = write(TEXTS);
    expect(dataset.splits['train']?.shards.map(({ file }) => file)).toEqual([
      'train-00000.arrow',
      'train-00001.arrow',
      'train-00002.arrow',
      'train-00003.arrow',
    ]);
    const reader = openDataset(directory).split('train');
    const ids = idsOf(trainTexts);
    expect(reader.tokens).toBe(ids.length);
    for (const length of [0, 1, 5, 64, 300, 1000])
      for (let start = 0; start + length <= ids.length; start += 37)
        expect([...reader.read(start, length)]).toEqual(ids.slice(start, start + length));
    reader.close();
  });

  test('what was read stays as it is', () => {
    write(TEXTS);
    const reader = openDataset(directory).split('train');
    const windows = Array.from({ length: 100 }, (_, index) => reader.read(index, 50));
    const ids = idsOf(trainTexts);
    expect(windows.every((window, index) => window.every((id, t) => id === ids[index + t]))).toBe(true);
    reader.close();
  });

  test('more shards than are kept open', () => {
    fs.mkdirSync(directory);
    const writer = new DatasetWriter(directory, { name: 'bytes', instance: bytes }, { batchTokens: 2, shardTokens: 2 });
    const ids = Array.from({ length: 140 }, (_, index) => [index, 256]).flat();
    for (let index = 0; index < 140; index++) writer.add('train', { ids: Uint16Array.of(index), bytes: 1, source: '' });
    expect(writer.finish().splits['train']?.shards).toHaveLength(140);
    const reader = openDataset(directory).split('train');
    for (const start of [0, 3, 270, 1, 200]) expect([...reader.read(start, 9)]).toEqual(ids.slice(start, start + 9));
    reader.close();
  });

  test('a document larger than a batch and a shard', async () => {
    const long = 'x'.repeat(2000);
    write(['short', long, 'short again']);
    const reader = openDataset(directory).split('train');
    expect([...reader.read(0, reader.tokens)]).toEqual(idsOf(['short', long, 'short again']));
    reader.close();
    await verifyDataset(directory);
  });

  test('large vocabularies have 32 bits', async () => {
    const wide: Tokenizer = {
      ...bytes,
      vocabSize: 70_000,
      endOfText: 69_999,
      encode: (utf8) => Uint32Array.from(utf8, (byte) => byte + 68_000),
    };
    const dataset = write(TEXTS, wide);
    expect(dataset.ids).toBe('uint32');
    const reader = openDataset(directory).split('val');
    expect([...reader.read(0, 3)]).toEqual([68_068, 68_111, 68_099]);
    expect(reader.read(reader.tokens - 1, 1)[0]).toBe(69_999);
    reader.close();
    await verifyDataset(directory);
  });

  test('the same documents give the same bytes', () => {
    write(TEXTS);
    const read = () =>
      fs.readdirSync(directory).map((file) => [file, fs.readFileSync(path.join(directory, file), 'hex')]);
    const first = read();
    fs.rmSync(directory, { recursive: true });
    write(TEXTS);
    expect(read()).toEqual(first);
  });

  test('the component opens datasets', () => {
    write(TEXTS);
    const { info } = llmxTokens.build({}, { create: () => expect.unreachable() }).open(directory);
    const tokens = idsOf(trainTexts).length;
    const valBytes = TEXTS.join('').length - trainTexts.join('').length;
    expect(info.splits).toEqual({
      train: { documents: 54, tokens, bytes: tokens - 54 },
      val: { documents: 6, tokens: valBytes + 6, bytes: valBytes },
    });
  });

  test('reading beyond the end is a defect of the caller', () => {
    write(['abc']);
    const reader = openDataset(directory).split('train');
    expect(failure(() => reader.read(2, 3))).toContain('LLMX_INVARIANT: There are no 3 tokens from 2 on.');
    reader.close();
    expect(failure(() => reader.read(0, 1))).toContain('LLMX_INVARIANT: A token reader was used after it was closed.');
  });
});

describe('the fingerprint', () => {
  const fingerprint = (texts: readonly string[]) => {
    const dataset = write(texts);
    fs.rmSync(directory, { recursive: true });
    return dataset.fingerprint;
  };

  test('depends on the tokens and their order', () => {
    expect(fingerprint(['a', 'b'])).toBe(fingerprint(['a', 'b']));
    expect(fingerprint(['a', 'b'])).not.toBe(fingerprint(['b', 'a']));
    expect(fingerprint(['a', 'b'])).not.toBe(fingerprint(['ab']));
  });

  test('does not depend on shards and sources', () => {
    const dataset = write(TEXTS);
    const moved = path.join(root, 'moved');
    fs.mkdirSync(moved);
    const writer = new DatasetWriter(moved, { name: 'bytes', instance: bytes });
    for (const [index, text] of TEXTS.entries())
      writer.add(index % 10 === 9 ? 'val' : 'train', {
        ids: bytes.encode(Buffer.from(text)),
        bytes: text.length,
        source: 'x',
      });
    expect(writer.finish().fingerprint).toBe(dataset.fingerprint);
  });
});

describe('files of other writers', () => {
  test('pyarrow: lists and large lists, empty batches, more columns', async () => {
    const reader = openDataset(FIXTURE).split('train');
    const texts = Array.from({ length: 40 }, (_, index) => `Document ${index} of ${'many '.repeat(index % 5)}words.`);
    expect([...reader.read(0, reader.tokens)]).toEqual(idsOf(texts));
    reader.close();
    expect((await verifyDataset(FIXTURE)).splits['train']?.documents).toBe(40);
  });

  test('compressed batches are refused', () => {
    const file = path.join(FIXTURE, '..', 'compressed.arrow');
    const descriptor = fs.openSync(file, 'r');
    const error = failure(() => readArrowIndex(descriptor, fs.statSync(file).size, 'compressed.arrow'));
    fs.closeSync(descriptor);
    expect(error).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "compressed.arrow" is compressed, so that its tokens have no fixed places. Write it without compression."`,
    );
  });

  test('list offsets that do not start at 0', () => {
    write(['abcdef', 'ghi']);
    const file = path.join(directory, 'train-00000.arrow');
    const shard = fs.readFileSync(file);
    const offsets = shard.indexOf(Buffer.from(Int32Array.of(0, 7, 11).buffer));
    shard.writeInt32LE(2, offsets);
    fs.writeFileSync(file, shard);
    const descriptor = fs.openSync(file, 'r');
    const { batches, documents } = readArrowIndex(descriptor, shard.length, file);
    fs.closeSync(descriptor);
    expect(documents).toBe(2);
    expect(batches.map(({ tokens }) => tokens)).toEqual([9]);
    expect(shard.readUInt16LE(batches[0]?.offset)).toBe('c'.charCodeAt(0));
  });
});

describe('missing datasets', () => {
  test('no folder, no split', () => {
    expect(failure(() => openDataset(directory))).toMatchInlineSnapshot(
      `"LLMX_DATASET_MISSING: There is no prepared dataset at "/data": it has no dataset.json. Prepare one with: llmx data prepare <files> --out /data"`,
    );
    write(TEXTS);
    expect(failure(() => openDataset(directory).split('test'))).toMatchInlineSnapshot(
      `"LLMX_DATASET_MISSING: The dataset "/data" has no split "test". It has: train, val."`,
    );
    expect(failure(() => openDataset(directory).split('constructor'))).toContain('LLMX_DATASET_MISSING');
  });
});

describe('damaged datasets', () => {
  const shard = () => path.join(directory, 'train-00001.arrow');
  const open = () => openDataset(directory).split('train').close();

  /** Puts a file of the same size in place of a shard, so that the size does not give it away. */
  const change = (edited: (bytes: Buffer) => void) => {
    const content = fs.readFileSync(shard());
    edited(content);
    fs.writeFileSync(shard(), content);
  };

  beforeEach(() => void write(TEXTS));

  test('dataset.json', () => {
    const file = path.join(directory, 'dataset.json');
    const text = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, text.slice(0, 100));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/dataset.json" is damaged: it is not valid JSON. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    fs.writeFileSync(file, text.replace('"version": 1', '"version": 2'));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/dataset.json" is not of format version 1. Prepare the dataset again, or use the version of llmx that wrote it."`,
    );
    fs.writeFileSync(file, text.replace('train-00001.arrow', '../train-00001.arrow'));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/dataset.json" is damaged: "splits.train.shards.1.file" is wrong: expected a file name without folders. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    fs.writeFileSync(file, text.replace('"endOfText": 256', '"endOfText": 257'));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/dataset.json" is damaged: its end-of-text id 257 is outside of its vocabulary of 257. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    fs.writeFileSync(file, text.replace('"vocabSize": 257', '"vocabSize": 300'));
    expect(failure(open)).toContain('its fingerprint should be');
    fs.writeFileSync(file, text.replace('"documents": 54', '"documents": 55'));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/dataset.json" is damaged: split "train" has 55 documents, but its shards have 54. Copy the dataset again from where it was intact, or prepare it again."`,
    );
  });

  test('a missing or truncated shard', () => {
    const size = fs.statSync(shard()).size;
    fs.truncateSync(shard(), size - 100);
    expect(failure(() => openDataset(directory))).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: it has 4798 bytes, dataset.json says 4898. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    edit(({ splits }) => void (splits['train']!.shards[1]!.size = size - 100));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: it is cut off: it should end with ARROW1. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    fs.rmSync(shard());
    expect(failure(() => openDataset(directory))).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is missing, though dataset.json names it. Copy the dataset again from where it was intact, or prepare it again."`,
    );
  });

  test('a file of another kind', () => {
    change((content) => content.fill(0, 0, 8));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: it is not an Arrow IPC file, which would start with ARROW1. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    change((content) => content.fill(0));
    expect(failure(open)).toContain('is not an Arrow IPC file');
    fs.writeFileSync(shard(), 'ARROW1');
    edit(({ splits }) => void (splits['train']!.shards[1]!.size = 6));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: it ends after 6 bytes, before its footer. Copy the dataset again from where it was intact, or prepare it again."`,
    );
  });

  test('a broken footer', () => {
    const footerLength = 2 ** 30;
    change((content) => content.writeInt32LE(footerLength, content.length - 10));
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: its footer cannot have 1073741824 bytes. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    change((content) => content.writeInt32LE(16, content.length - 10));
    expect(failure(open)).toContain('LLMX_DATASET_DAMAGED');
  });

  test('counts that are not those of dataset.json', () => {
    edit(({ splits }) => {
      splits['train']!.tokens++;
      splits['train']!.shards[1]!.tokens++;
    });
    expect(failure(open)).toMatch(/train-00001.arrow" is damaged: it holds \d+ tokens, dataset.json says \d+\./);
    edit(({ splits }) => {
      splits['train']!.tokens--;
      splits['train']!.shards[1]!.tokens--;
      splits['train']!.documents++;
      splits['train']!.shards[1]!.documents++;
    });
    expect(failure(open)).toMatch(/it holds \d+ documents, dataset.json says \d+\./);
    edit((dataset) => void (dataset.ids = 'uint32'));
    expect(failure(open)).toContain('its ids are uint16, dataset.json says uint32');
  });

  test('another first column', () => {
    change((content) => {
      for (let at = content.indexOf('input_ids'); at !== -1; at = content.indexOf('input_ids'))
        content.write('inputs_id', at);
    });
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: its first column should be input_ids, a list of uint16 or uint32. Copy the dataset again from where it was intact, or prepare it again."`,
    );
  });

  test('ids beyond the vocabulary', () => {
    change((content) =>
      content.writeUInt16LE(999, content.indexOf(Buffer.from(Uint16Array.from(Buffer.from('Document')).buffer))),
    );
    const reader = openDataset(directory).split('train');
    expect(failure(() => reader.read(0, reader.tokens))).toMatchInlineSnapshot(
      `"LLMX_DATASET_DAMAGED: "/data/train-00001.arrow" is damaged: the id at byte 280 is 999, the vocabulary has 257. Copy the dataset again from where it was intact, or prepare it again."`,
    );
    reader.close();
  });

  test('a shard of another tokenizer', () => {
    const other = 'f'.repeat(64);
    change((content) => {
      for (let at = content.indexOf(bytes.hash); at !== -1; at = content.indexOf(bytes.hash)) content.write(other, at);
    });
    expect(failure(open)).toMatchInlineSnapshot(
      `"LLMX_TOKENIZER_MISMATCH: "/data/train-00001.arrow" was written with the tokenizer ffffffffffff, its dataset with "bytes" (0f0a1def7e84). The shard belongs to another dataset: put the right one back, or prepare the dataset again."`,
    );
  });

  test('a changed byte is found by verifying', async () => {
    await expect(verifyDataset(directory)).resolves.toMatchObject({ vocabSize: 257 });
    change((content) =>
      content.write('X', content.indexOf(Buffer.from(Uint16Array.from(Buffer.from('Document')).buffer))),
    );
    await expect(verifyDataset(directory)).rejects.toThrow(
      /train-00001.arrow" is damaged: its SHA-256 is not [0-9a-f]{64}/,
    );
    fs.rmSync(directory, { recursive: true });
    write(TEXTS);
    edit(({ splits }) => void (splits['train']!.tokensSha256 = '0'.repeat(64)));
    await expect(verifyDataset(directory)).rejects.toThrow(/the ids of split "train" do not match their hash/);
  });
});
