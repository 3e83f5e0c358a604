import { createHash, type Hash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';

import { LlmxError } from '../errors/index.ts';
import type { TokenIds, Tokenizer } from '../plugin/types.ts';
import {
  DATASET_FILE,
  datasetFingerprint,
  type DatasetJson,
  FORMAT,
  FORMAT_VERSION,
  type SplitJson,
  TOKENIZER_HASH_KEY,
} from './dataset-json.ts';
import { onFile, syncDirectory, writeFully } from './files.ts';
import { shardSchema, ShardWriter } from './shard-writer.ts';

const MAX_UINT16_VOCABULARY = 65_536;
/** Arrow for JavaScript counts the bytes of a buffer in 31 bits and rounds them up to a multiple of 8. */
const MAX_BATCH_BYTES = 2 ** 31 - 8;

/** A tokenizer as a configuration names it, and built. */
export interface NamedTokenizer {
  readonly name: string;
  readonly instance: Tokenizer;
}

/** Tokens per record batch and per shard; larger documents get a batch, or a shard, of their own. */
export interface DatasetLimits {
  readonly batchTokens: number;
  readonly shardTokens: number;
}
const LIMITS: DatasetLimits = { batchTokens: 1_048_576, shardTokens: 134_217_728 };

/** One document: ids without end of text, the UTF-8 bytes they stand for, and where it comes from. */
export interface TokenDocument {
  readonly ids: TokenIds;
  readonly bytes: number;
  readonly source: string;
}

/** What all splits of a dataset share. */
interface DatasetTraits {
  readonly directory: string;
  readonly tokenizer: NamedTokenizer;
  readonly ids: DatasetJson['ids'];
  readonly limits: DatasetLimits;
}

/**
 * Writes a dataset into a folder that exists and is empty. Memory holds one record batch per split. The same documents
 * in the same order give the same bytes.
 */
export class DatasetWriter {
  readonly #traits: DatasetTraits;
  readonly #splits = new Map<string, SplitWriter>();

  constructor(directory: string, tokenizer: NamedTokenizer, limits: DatasetLimits = LIMITS) {
    const ids = tokenizer.instance.vocabSize <= MAX_UINT16_VOCABULARY ? 'uint16' : 'uint32';
    this.#traits = { directory, tokenizer, ids, limits };
  }

  /** Documents and tokens so far, ends of text included. */
  get totals(): { readonly documents: number; readonly tokens: number } {
    const splits = [...this.#splits.values()].map(({ totals }) => totals);
    const sum = (key: 'documents' | 'tokens') => splits.reduce((total, counts) => total + counts[key], 0);
    return { documents: sum('documents'), tokens: sum('tokens') };
  }

  /** @throws LlmxError `LLMX_INPUT_INVALID`, `LLMX_DISK_FULL`, `LLMX_IO_FAILED` */
  add(split: string, document: TokenDocument): void {
    let writer = this.#splits.get(split);
    if (writer === undefined) this.#splits.set(split, (writer = new SplitWriter(split, this.#traits)));
    writer.add(document);
  }

  /**
   * Writes what is left, then dataset.json; all files are on the disk when this returns.
   *
   * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
   */
  finish(): DatasetJson {
    const { directory, tokenizer, ids } = this.#traits;
    const { vocabSize, endOfText, hash } = tokenizer.instance;
    const splits = [...this.#splits].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const content = {
      format: FORMAT,
      version: FORMAT_VERSION,
      tokenizer: { name: tokenizer.name, hash },
      vocabSize,
      endOfText,
      ids,
      splits: Object.fromEntries(splits.map(([name, writer]) => [name, writer.finish()])),
    } as const;
    const dataset: DatasetJson = { ...content, fingerprint: datasetFingerprint(content) };
    writeSynced(join(directory, DATASET_FILE), `${JSON.stringify(dataset, null, 2)}\n`);
    syncDirectory(directory);
    return dataset;
  }

  /** Closes all files; the dataset stays incomplete. */
  abort(): void {
    for (const writer of this.#splits.values()) writer.abort();
  }
}

class SplitWriter {
  readonly #name: string;
  readonly #traits: DatasetTraits;
  readonly #hash: Hash = createHash('sha256');
  readonly #shards: SplitJson['shards'] = [];
  #writer: ShardWriter | undefined;
  /** Of the shard that is being written. */
  #counts = { documents: 0, tokens: 0, bytes: 0 };
  #buffer: TokenIds;
  #filled = 0;
  #bytes = 0;
  #ends: number[] = [];
  #sources: string[] = [];

  constructor(name: string, traits: DatasetTraits) {
    this.#name = name;
    this.#traits = traits;
    this.#buffer = this.#newIds(traits.limits.batchTokens);
  }

  get totals(): { readonly documents: number; readonly tokens: number; readonly bytes: number } {
    const pending = { documents: this.#ends.length, tokens: this.#filled, bytes: this.#bytes };
    const all = [...this.#shards, this.#counts, pending];
    const sum = (key: keyof typeof pending) => all.reduce((total, counts) => total + counts[key], 0);
    return { documents: sum('documents'), tokens: sum('tokens'), bytes: sum('bytes') };
  }

  add({ ids, bytes, source }: TokenDocument): void {
    const { batchTokens } = this.#traits.limits;
    const length = ids.length + 1;
    if (this.#filled + length > batchTokens) this.#flush();
    if (length > batchTokens) this.#buffer = this.#largeBuffer(length, source);
    this.#buffer.set(ids, this.#filled);
    this.#buffer[this.#filled + ids.length] = this.#traits.tokenizer.instance.endOfText;
    this.#filled += length;
    this.#bytes += bytes;
    this.#ends.push(this.#filled);
    this.#sources.push(source);
    if (length > batchTokens) {
      this.#flush();
      this.#buffer = this.#newIds(batchTokens);
    }
  }

  finish(): SplitJson {
    this.#flush();
    this.#finishShard();
    return { ...this.totals, tokensSha256: this.#hash.digest('hex'), shards: this.#shards };
  }

  abort(): void {
    this.#writer?.close();
    this.#writer = undefined;
  }

  #flush(): void {
    if (this.#filled === 0) return;
    if (this.#counts.tokens > 0 && this.#counts.tokens + this.#filled > this.#traits.limits.shardTokens)
      this.#finishShard();
    const ids = this.#buffer.subarray(0, this.#filled);
    this.#shard().write({ ids, ends: this.#ends, sources: this.#sources });
    this.#hash.update(ids);
    this.#counts.documents += this.#ends.length;
    this.#counts.tokens += this.#filled;
    this.#counts.bytes += this.#bytes;
    [this.#filled, this.#bytes, this.#ends, this.#sources] = [0, 0, [], []];
  }

  #shard(): ShardWriter {
    return (this.#writer ??= new ShardWriter(join(this.#traits.directory, this.#fileName()), this.#schema()));
  }

  #finishShard(): void {
    if (this.#writer === undefined) return;
    const file = this.#fileName();
    this.#shards.push({ file, ...this.#counts, ...this.#writer.finish() });
    this.#writer = undefined;
    this.#counts = { documents: 0, tokens: 0, bytes: 0 };
  }

  #fileName(): string {
    return `${this.#name}-${String(this.#shards.length).padStart(5, '0')}.arrow`;
  }

  #schema() {
    const { tokenizer, ids } = this.#traits;
    return shardSchema(ids, {
      'llmx.format': FORMAT,
      'llmx.version': String(FORMAT_VERSION),
      'llmx.tokenizer': tokenizer.name,
      [TOKENIZER_HASH_KEY]: tokenizer.instance.hash,
      'llmx.vocab_size': String(tokenizer.instance.vocabSize),
      'llmx.end_of_text': String(tokenizer.instance.endOfText),
      'llmx.split': this.#name,
    });
  }

  #newIds(length: number): TokenIds {
    return this.#traits.ids === 'uint16' ? new Uint16Array(length) : new Uint32Array(length);
  }

  #largeBuffer(length: number, source: string): TokenIds {
    const limit = Math.floor(MAX_BATCH_BYTES / this.#buffer.BYTES_PER_ELEMENT);
    if (length <= limit) return this.#newIds(length);
    throw new LlmxError('LLMX_INPUT_INVALID', `"${source}" has ${length} tokens; a document has at most ${limit}.`, {
      hint: 'Cut it into several documents.',
    });
  }
}

function writeSynced(path: string, text: string): void {
  const descriptor = onFile(path, 'create', () => fs.openSync(path, 'wx'));
  try {
    writeFully(descriptor, Buffer.from(text), path);
    onFile(path, 'write', () => fs.fsyncSync(descriptor));
  } finally {
    fs.closeSync(descriptor);
  }
}
