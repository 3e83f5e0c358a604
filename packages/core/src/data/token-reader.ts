import fs from 'node:fs';

import { assert, ioError } from '../errors/index.ts';
import type { TokenIds, TokenReader } from '../plugin/types.ts';
import type { BatchLocation } from './arrow-index.ts';
import { damaged, type DatasetJson, missingShard } from './dataset-json.ts';

/** Shards kept open per reader; with more, the one opened first is closed. */
const OPEN_SHARDS = 128;
/** Small windows are cut from pieces of this size: an allocation of its own would cost as much as reading them. */
const PIECE_BYTES = 65_536;
/** Reads between two looks at whether a shard has changed: a look costs as much as a read. */
const READS_PER_CHECK = 1024;

/** What changes when a file is written to, or another takes its name. */
const identityOf = ({ dev, ino, size, mtimeMs }: fs.Stats): string => [dev, ino, size, mtimeMs].join(' ');

/** Descriptors of a split's shards, opened when they are first needed. */
export class ShardFiles {
  readonly paths: readonly string[];
  readonly #open = new Map<number, number>();
  /** Each shard's identity when it was first opened. */
  readonly #identities = new Map<number, string>();

  constructor(paths: readonly string[]) {
    this.paths = paths;
  }

  /** @throws LlmxError `LLMX_DATASET_DAMAGED`, `LLMX_IO_FAILED` */
  descriptor(shard: number): number {
    return this.#open.get(shard) ?? this.#openShard(shard);
  }

  /**
   * Fails if a shard is not what it was when it was first opened.
   *
   * @throws LlmxError `LLMX_DATASET_DAMAGED`
   */
  check(shard: number, descriptor = this.descriptor(shard)): void {
    const identity = identityOf(fs.fstatSync(descriptor));
    const first = this.#identities.get(shard) ?? identity;
    this.#identities.set(shard, first);
    if (identity !== first) throw damaged(this.paths[shard]!, 'it has been changed since it was opened');
  }

  close(): void {
    for (const descriptor of this.#open.values()) fs.closeSync(descriptor);
    this.#open.clear();
  }

  #openShard(shard: number): number {
    const path = this.paths[shard]!;
    const [oldest] = this.#open;
    if (oldest !== undefined && this.#open.size >= OPEN_SHARDS) {
      fs.closeSync(oldest[1]);
      this.#open.delete(oldest[0]);
    }
    try {
      const descriptor = fs.openSync(path, 'r');
      this.#open.set(shard, descriptor);
      this.check(shard, descriptor);
      return descriptor;
    } catch (cause) {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') throw missingShard(path);
      throw ioError(cause, path, 'open');
    }
  }
}

/**
 * Tokens of one split, read by position. The index holds three numbers per record batch, about 20 bytes per million
 * tokens; ids themselves are never kept.
 */
export class ShardedTokens implements TokenReader {
  readonly tokens: number;
  readonly #files: ShardFiles;
  readonly #kind: DatasetJson['ids'];
  readonly #vocabSize: number;
  /** First token of each batch, and the number of tokens at the end. */
  readonly #first: Float64Array;
  readonly #offset: Float64Array;
  readonly #shard: Uint32Array;
  #piece = new ArrayBuffer(0);
  #used = 0;
  #reads = 0;
  #closed = false;

  /** `shards` has the batches of each of the files. */
  constructor(
    files: ShardFiles,
    shards: readonly (readonly BatchLocation[])[],
    format: Pick<DatasetJson, 'ids' | 'vocabSize'>,
  ) {
    const batches = shards.flatMap((locations, shard) => locations.map((location) => ({ ...location, shard })));
    this.#files = files;
    this.#kind = format.ids;
    this.#vocabSize = format.vocabSize;
    this.#offset = Float64Array.from(batches, ({ offset }) => offset);
    this.#shard = Uint32Array.from(batches, ({ shard }) => shard);
    this.#first = new Float64Array(batches.length + 1);
    for (const [index, { tokens }] of batches.entries()) this.#first[index + 1] = this.#first[index]! + tokens;
    this.tokens = this.#first[batches.length]!;
  }

  /** The ids belong to the caller. */
  read(start: number, length: number): TokenIds {
    assert(!this.#closed, 'A token reader was used after it was closed.');
    // The text costs more than the rest of the call.
    if (!(start >= 0 && length >= 0 && start + length <= this.tokens))
      assert(false, `There are no ${length} tokens from ${start} on.`);
    const ids = this.#allocate(length);
    let done = 0;
    for (let batch = this.#batchOf(start); done < length; batch++) {
      const within = start + done - this.#first[batch]!;
      const count = Math.min(length - done, this.#first[batch + 1]! - this.#first[batch]! - within);
      this.#readPart(ids, done, count, batch, within);
      done += count;
    }
    return ids;
  }

  close(): void {
    this.#closed = true;
    this.#files.close();
  }

  /** Fills `count` of the ids from `done` on with those of `batch` from `within` on. */
  #readPart(ids: TokenIds, done: number, count: number, batch: number, within: number): void {
    const shard = this.#shard[batch]!;
    const width = ids.BYTES_PER_ELEMENT;
    const position = this.#offset[batch]! + within * width;
    const descriptor = this.#files.descriptor(shard);
    this.#reads = (this.#reads + 1) % READS_PER_CHECK;
    if (this.#reads === 0) this.#files.check(shard, descriptor);
    const path = this.#files.paths[shard]!;
    for (let got = 0; got < count * width;) {
      const bytes = readSome(descriptor, ids, done * width + got, count * width - got, position + got, path);
      if (bytes === 0) throw damaged(path, `it ends before byte ${position + count * width}, where tokens should be`);
      got += bytes;
    }
    const foreign = firstAbove(ids, done, done + count, this.#vocabSize - 1);
    if (foreign !== undefined)
      throw damaged(
        path,
        `the id at byte ${position + (foreign - done) * width} is ${ids[foreign]}, the vocabulary has ${this.#vocabSize}`,
      );
  }

  /** The batch that holds a token, by bisection. */
  #batchOf(token: number): number {
    let [low, high] = [0, this.#shard.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#first[middle]! <= token) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #allocate(length: number): TokenIds {
    const bytes = this.#kind === 'uint16' ? 2 * length : 4 * length;
    if (bytes > PIECE_BYTES / 4) return this.#kind === 'uint16' ? new Uint16Array(length) : new Uint32Array(length);
    if (this.#used + bytes > this.#piece.byteLength) {
      this.#piece = new ArrayBuffer(PIECE_BYTES);
      this.#used = 0;
    }
    const offset = this.#used;
    this.#used += Math.ceil(bytes / 8) * 8;
    return this.#kind === 'uint16'
      ? new Uint16Array(this.#piece, offset, length)
      : new Uint32Array(this.#piece, offset, length);
  }
}

/** Index of the first of the ids from `start` to `end` that is above `limit`. */
function firstAbove(ids: TokenIds, start: number, end: number, limit: number): number | undefined {
  for (let index = start; index < end; index++) if (ids[index]! > limit) return index;
  return undefined;
}

function readSome(file: number, ids: TokenIds, offset: number, length: number, position: number, path: string): number {
  try {
    return fs.readSync(file, ids, offset, length, position);
  } catch (cause) {
    throw ioError(cause, path, `read ${length} bytes from byte ${position} on of`);
  }
}
