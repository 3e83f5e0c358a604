import { createHash } from 'node:crypto';
import fs from 'node:fs';

import * as arrow from 'apache-arrow';

import type { TokenIds } from '../plugin/types.ts';
import type { DatasetJson } from './dataset-json.ts';
import { onFile, writeFully } from './files.ts';

/** Documents that are written as one record batch. */
export interface DocumentBatch {
  /** Ids of all documents, one after the other. */
  readonly ids: TokenIds;
  /** Where each document ends in `ids`. */
  readonly ends: readonly number[];
  /** Where each document comes from. */
  readonly sources: readonly string[];
}

/** Fields keep Arrow's defaults (`item`, nullable), so that other programs see no schema of a special kind. */
export function shardSchema(ids: DatasetJson['ids'], metadata: Readonly<Record<string, string>>): arrow.Schema {
  const item = arrow.Field.new('item', ids === 'uint16' ? new arrow.Uint16() : new arrow.Uint32(), true);
  const fields = [
    arrow.Field.new('input_ids', new arrow.List(item), true),
    arrow.Field.new('source', new arrow.Utf8(), true),
  ];
  return new arrow.Schema(fields, new Map(Object.entries(metadata)));
}

/** Takes what the Arrow writer gives and puts it into a file at once: nothing queues up, and each byte is hashed. */
class HashedFile extends arrow.AsyncByteQueue {
  readonly path: string;
  readonly descriptor: number;
  readonly hash = createHash('sha256');
  size = 0;
  #open = true;

  constructor(path: string) {
    super();
    this.path = path;
    this.descriptor = onFile(path, 'create', () => fs.openSync(path, 'wx'));
  }

  override write(chunk: Uint8Array): void {
    writeFully(this.descriptor, chunk, this.path);
    this.hash.update(chunk);
    this.size += chunk.byteLength;
  }

  /** @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED` */
  closeFile(): void {
    if (!this.#open) return;
    this.#open = false;
    onFile(this.path, 'write', () => fs.closeSync(this.descriptor));
  }
}

/** One Arrow IPC file, written batch by batch; no more than a batch is in memory. */
export class ShardWriter {
  readonly #schema: arrow.Schema;
  readonly #file: HashedFile;
  readonly #writer = new arrow.RecordBatchFileWriter();

  /** @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED` */
  constructor(path: string, schema: arrow.Schema) {
    this.#schema = schema;
    this.#file = new HashedFile(path);
    try {
      this.#writer.reset(this.#file, schema);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED` */
  write(batch: DocumentBatch): void {
    const length = batch.ends.length;
    const children = [this.#idColumn(batch), sourceColumn(batch.sources)];
    const type = new arrow.Struct(this.#schema.fields);
    this.#writer.write(new arrow.RecordBatch(this.#schema, arrow.makeData({ type, length, nullCount: 0, children })));
  }

  /**
   * Writes the footer and waits until the file is on the disk.
   *
   * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
   */
  finish(): { readonly size: number; readonly sha256: string } {
    const { path, descriptor, hash } = this.#file;
    this.#writer.close();
    onFile(path, 'write', () => fs.fsyncSync(descriptor));
    this.close();
    return { size: this.#file.size, sha256: hash.digest('hex') };
  }

  /** Closes the file as it is. */
  close(): void {
    this.#file.closeFile();
  }

  #idColumn({ ids, ends }: DocumentBatch): arrow.Data {
    const type = this.#schema.fields[0]!.type as arrow.List;
    const child = arrow.makeData({
      type: type.children[0]!.type as arrow.Uint16,
      length: ids.length,
      nullCount: 0,
      data: ids,
    });
    const valueOffsets = Int32Array.from([0, ...ends]);
    return arrow.makeData({ type, length: ends.length, nullCount: 0, valueOffsets, child });
  }
}

function sourceColumn(sources: readonly string[]): arrow.Data {
  const texts = sources.map((source) => Buffer.from(source));
  const valueOffsets = new Int32Array(texts.length + 1);
  for (const [index, text] of texts.entries()) valueOffsets[index + 1] = valueOffsets[index]! + text.length;
  return arrow.makeData({
    type: new arrow.Utf8(),
    length: texts.length,
    nullCount: 0,
    valueOffsets,
    data: Buffer.concat(texts),
  });
}
