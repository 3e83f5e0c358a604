import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { LlmxError } from '../errors/index.ts';
import type { DatasetInfo } from '../plugin/types.ts';
import { foreignReason, onFile } from './files.ts';

export const DATASET_FILE = 'dataset.json';
export const FORMAT = 'llmx-tokens';
export const FORMAT_VERSION = 1;
/** Key of a shard's schema metadata that holds the tokenizer's hash. */
export const TOKENIZER_HASH_KEY = 'llmx.tokenizer_hash';

const count = z.int().min(0);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, { error: 'expected 64 hexadecimal digits' });
const counts = { documents: count, tokens: count, bytes: count };

const shard = z.strictObject({
  /** A plain name: a dataset never reaches outside of its folder. */
  file: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, { error: 'expected a file name without folders' }),
  ...counts,
  /** Bytes of the file. */
  size: count,
  sha256,
});

const split = z.strictObject({
  ...counts,
  /** Hash of the ids of all shards in order, as they are stored: little endian, 2 or 4 bytes each. */
  tokensSha256: sha256,
  shards: z.array(shard).min(1),
});

/** What dataset.json holds; docs/reference/formats.md describes the keys. */
const datasetSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(FORMAT_VERSION),
  tokenizer: z.strictObject({ name: z.string().min(1), hash: z.string().min(1) }),
  vocabSize: z.int().min(1),
  endOfText: count,
  ids: z.enum(['uint16', 'uint32']),
  fingerprint: sha256,
  splits: z.record(z.string().regex(/^[a-z][a-z0-9-]*$/), split),
});
export type DatasetJson = z.output<typeof datasetSchema>;
export type SplitJson = z.output<typeof split>;
export type ShardJson = z.output<typeof shard>;

/** Hash over what decides which tokens are read: not over file names, sources, or how splits are cut into shards. */
export function datasetFingerprint(dataset: Omit<DatasetJson, 'fingerprint'>): string {
  const lines = [
    `${dataset.format} ${dataset.version}`,
    `tokenizer ${dataset.tokenizer.hash}`,
    `vocabulary ${dataset.vocabSize}`,
    `end-of-text ${dataset.endOfText}`,
    `ids ${dataset.ids}`,
    ...Object.entries(dataset.splits)
      .map(([name, { tokens, tokensSha256 }]) => `split ${name} ${tokens} ${tokensSha256}`)
      .toSorted(),
  ];
  return createHash('sha256')
    .update(lines.map((line) => `${line}\n`).join(''))
    .digest('hex');
}

/**
 * Reads and checks dataset.json of a dataset's folder.
 *
 * @throws LlmxError `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`, `LLMX_IO_FAILED`
 */
export function readDatasetJson(directory: string): DatasetJson {
  const path = join(directory, DATASET_FILE);
  if (!fs.existsSync(path))
    throw new LlmxError(
      'LLMX_DATASET_MISSING',
      `There is no prepared dataset at "${directory}": it has no ${DATASET_FILE}.`,
      {
        hint: `Prepare one with: llmx data prepare <files> --out ${directory}`,
      },
    );
  const foreign = foreignReason(path);
  if (foreign !== undefined) throw damaged(path, foreign);
  const text = onFile(path, 'read', () => fs.readFileSync(path, 'utf8'));
  const dataset = parseDatasetJson(text, path);
  const problem = contradiction(dataset);
  if (problem !== undefined) throw damaged(path, problem);
  return dataset;
}

function parseDatasetJson(text: string, path: string): DatasetJson {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw damaged(path, 'it is not valid JSON', cause);
  }
  const { data, error } = datasetSchema.safeParse(json);
  if (data !== undefined) return data;
  if (error.issues.some((issue) => issue.path.join('.') === 'version'))
    throw new LlmxError('LLMX_DATASET_DAMAGED', `"${path}" is not of format version ${FORMAT_VERSION}.`, {
      hint: 'Prepare the dataset again, or use the version of llmx that wrote it.',
      cause: error,
    });
  const [issue] = error.issues;
  const where = issue === undefined || issue.path.length === 0 ? 'the file' : `"${issue.path.join('.')}"`;
  throw damaged(path, `${where} is wrong: ${issue?.message ?? error.message}`, error);
}

/** What two places of dataset.json say differently, if anything. */
function contradiction(dataset: DatasetJson): string | undefined {
  if (dataset.endOfText >= dataset.vocabSize)
    return `its end-of-text id ${dataset.endOfText} is outside of its vocabulary of ${dataset.vocabSize}`;
  for (const [name, { shards, ...totals }] of Object.entries(dataset.splits)) {
    for (const key of ['documents', 'tokens', 'bytes'] as const) {
      const sum = shards.reduce((total, { [key]: value }) => total + value, 0);
      if (sum !== totals[key]) return `split "${name}" has ${totals[key]} ${key}, but its shards have ${sum}`;
    }
  }
  const expected = datasetFingerprint(dataset);
  return expected === dataset.fingerprint ? undefined : `its fingerprint should be ${expected}`;
}

/** What the rest of llmx knows of a dataset. */
export function datasetInfo({ fingerprint, tokenizer, vocabSize, endOfText, splits }: DatasetJson): DatasetInfo {
  const entries = Object.entries(splits).map(([name, { documents, tokens, bytes }]) => [
    name,
    { documents, tokens, bytes },
  ]);
  return { fingerprint, tokenizer, vocabSize, endOfText, splits: Object.fromEntries(entries) };
}

const MEND = 'Copy the dataset again from where it was intact, or prepare it again.';

/** `file` does not hold what it should; `problem` is a clause about it. */
export const damaged = (file: string, problem: string, cause?: unknown): LlmxError =>
  new LlmxError('LLMX_DATASET_DAMAGED', `"${file}" is damaged: ${problem}.`, {
    hint: MEND,
    cause,
  });

/** A shard that dataset.json names is not there. */
export const missingShard = (path: string): LlmxError =>
  new LlmxError('LLMX_DATASET_DAMAGED', `"${path}" is missing, though ${DATASET_FILE} names it.`, { hint: MEND });
