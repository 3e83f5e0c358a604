import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { ioError, LlmxError } from '../errors/index.ts';
import { defineSource } from '../plugin/define.ts';
import type { DatasetInfo, Source, TokenReader } from '../plugin/types.ts';
import { readArrowIndex } from './arrow-index.ts';
import {
  damaged,
  datasetInfo,
  type DatasetJson,
  missingShard,
  readDatasetJson,
  type ShardJson,
  type SplitJson,
  TOKENIZER_HASH_KEY,
} from './dataset-json.ts';
import { foreignReason, nextTurn, onFile } from './files.ts';
import { ShardedTokens, ShardFiles } from './token-reader.ts';

const READ_BYTES = 1_048_576;
const READ_TOKENS = 1_048_576;

/** Token datasets as `llmx data prepare` writes them; docs/reference/formats.md, "Token datasets". */
export const llmxTokens = defineSource({
  name: 'llmx-tokens',
  summary: 'Datasets that `llmx data prepare` wrote: Arrow files of token ids.',
  config: z.strictObject({}),
  build: (): Source => ({ open: openDataset }),
});

/**
 * Opens a dataset: dataset.json and the sizes of all shards are checked here, the footers of a split's shards when the
 * split is opened.
 *
 * @throws LlmxError `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`, `LLMX_TOKENIZER_MISMATCH`
 */
export function openDataset(directory: string): ReturnType<Source['open']> {
  const dataset = readDatasetJson(directory);
  for (const { shards } of Object.values(dataset.splits)) for (const shard of shards) checkSize(directory, shard);
  return { info: datasetInfo(dataset), split: (name) => openSplit(directory, dataset, name) };
}

/**
 * Reads a whole dataset and compares every shard's hash, the hash of the ids, and the range of every id with
 * dataset.json.
 *
 * @throws LlmxError `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`, `LLMX_TOKENIZER_MISMATCH`, `LLMX_INTERRUPTED`
 */
export async function verifyDataset(directory: string, signal?: AbortSignal): Promise<DatasetInfo> {
  const { info, split } = openDataset(directory);
  const { splits } = readDatasetJson(directory);
  for (const [name, { shards, tokensSha256 }] of Object.entries(splits)) {
    for (const shard of shards) await checkHash(join(directory, shard.file), shard.sha256, signal);
    const reader = split(name);
    try {
      if ((await hashTokens(reader, signal)) !== tokensSha256)
        throw damaged(directory, `the ids of split "${name}" do not match their hash`);
    } finally {
      reader.close();
    }
  }
  return info;
}

function openSplit(directory: string, dataset: DatasetJson, name: string): TokenReader {
  const split = Object.hasOwn(dataset.splits, name) ? dataset.splits[name] : undefined;
  if (split === undefined)
    throw new LlmxError('LLMX_DATASET_MISSING', `The dataset "${directory}" has no split "${name}".`, {
      hint: `It has: ${Object.keys(dataset.splits).toSorted().join(', ')}.`,
    });
  const files = new ShardFiles(split.shards.map(({ file }) => join(directory, file)));
  try {
    return new ShardedTokens(files, indexShards(files, split, dataset), dataset);
  } catch (error) {
    files.close();
    throw error;
  }
}

const indexShards = (files: ShardFiles, { shards }: SplitJson, dataset: DatasetJson) =>
  shards.map((shard, number) => {
    const path = files.paths[number]!;
    const index = readArrowIndex(files.descriptor(number), shard.size, path);
    const tokens = index.batches.reduce((sum, batch) => sum + batch.tokens, 0);
    const hash = index.metadata.get(TOKENIZER_HASH_KEY);
    if (hash !== undefined && hash !== dataset.tokenizer.hash) throw otherTokenizer(path, hash, dataset.tokenizer);
    if (index.ids !== dataset.ids) throw damaged(path, `its ids are ${index.ids}, dataset.json says ${dataset.ids}`);
    if (tokens !== shard.tokens) throw damaged(path, `it holds ${tokens} tokens, dataset.json says ${shard.tokens}`);
    if (index.documents !== shard.documents)
      throw damaged(path, `it holds ${index.documents} documents, dataset.json says ${shard.documents}`);
    return index.batches;
  });

function checkSize(directory: string, { file, size }: ShardJson): void {
  const path = join(directory, file);
  const foreign = foreignReason(path);
  if (foreign !== undefined) throw damaged(path, foreign);
  const found = onFile(path, 'read', () => fs.statSync(path, { throwIfNoEntry: false }));
  if (found === undefined) throw missingShard(path);
  if (found.size !== size) throw damaged(path, `it has ${found.size} bytes, dataset.json says ${size}`);
}

function throwIfStopped(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true)
    throw new LlmxError('LLMX_INTERRUPTED', `Verification of the dataset was stopped by ${String(signal.reason)}.`);
}

async function checkHash(path: string, expected: string, signal: AbortSignal | undefined): Promise<void> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of fs.createReadStream(path, { highWaterMark: READ_BYTES })) {
      throwIfStopped(signal);
      hash.update(chunk as Uint8Array);
    }
  } catch (cause) {
    throw ioError(cause, path, 'read');
  }
  if (hash.digest('hex') !== expected) throw damaged(path, `its SHA-256 is not ${expected}`);
}

async function hashTokens(reader: TokenReader, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256');
  for (let start = 0; start < reader.tokens; start += READ_TOKENS) {
    hash.update(reader.read(start, Math.min(READ_TOKENS, reader.tokens - start)));
    await nextTurn();
    throwIfStopped(signal);
  }
  return hash.digest('hex');
}

const otherTokenizer = (path: string, hash: string, tokenizer: DatasetJson['tokenizer']): LlmxError =>
  new LlmxError(
    'LLMX_TOKENIZER_MISMATCH',
    `"${path}" was written with the tokenizer ${short(hash)}, its dataset with "${tokenizer.name}" (${short(tokenizer.hash)}).`,
    { hint: 'The shard belongs to another dataset: put the right one back, or prepare the dataset again.' },
  );

/** Enough of a hash to tell it from others. */
const short = (hash: string): string => hash.slice(0, 12);
