import { ioError, LlmxError } from '../errors/index.ts';
import { damaged, type DatasetJson } from './dataset-json.ts';
import { readFully } from './files.ts';
import { FlatTable, int64At } from './flatbuffer.ts';

/** Where the ids of one record batch lie: `tokens` ids from byte `offset` of the file on. */
export interface BatchLocation {
  readonly tokens: number;
  readonly offset: number;
}

export interface ArrowIndex {
  readonly documents: number;
  readonly ids: DatasetJson['ids'];
  /** Metadata of the schema. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly batches: readonly BatchLocation[];
}

// Field slots and codes of Arrow's format/{File,Message,Schema}.fbs.
const FOOTER = { schema: 1, recordBatches: 3 };
const SCHEMA = { endianness: 0, fields: 1, metadata: 2 };
const FIELD = { name: 0, typeCode: 2, type: 3, dictionary: 4, children: 5 };
const INTEGER = { bits: 0, signed: 1 };
const MESSAGE = { headerCode: 1, header: 2, bodyLength: 3 };
const RECORD_BATCH = { length: 0, nodes: 1, buffers: 2, compression: 3 };
const TYPE_INTEGER = 2;
const TYPE_LIST = 12;
const TYPE_LARGE_LIST = 21;
const HEADER_RECORD_BATCH = 3;
const MAGIC = 'ARROW1';
const CONTINUATION = 0xffffffff;
const BLOCK_SIZE = 24;
const PAIR_SIZE = 16;
/** Magic and padding at the start; length of the footer and magic at the end. */
const HEAD_SIZE = 8;
const TAIL_SIZE = 10;

interface Column {
  readonly ids: DatasetJson['ids'];
  /** Bytes of a list offset. */
  readonly offsetSize: 4 | 8;
}

/** A file that is being read; `end` is where the footer starts, so where all batches must end. */
interface ArrowFile {
  readonly descriptor: number;
  readonly path: string;
  readonly end: number;
}

/**
 * Finds the ids in an Arrow IPC file whose first column is `input_ids`, a list of uint16 or uint32, by reading its
 * footer and the header of each record batch. Nothing of the ids themselves is read.
 *
 * @throws LlmxError `LLMX_DATASET_DAMAGED`
 */
export function readArrowIndex(descriptor: number, size: number, path: string): ArrowIndex {
  try {
    const { footer, end } = readFooter(descriptor, size, path);
    const schema = footer.table(FOOTER.schema);
    if (schema === undefined) throw damaged(path, 'its footer has no schema');
    const column = readColumn(schema, path);
    const file = { descriptor, path, end };
    const batches = footer.structs(FOOTER.recordBatches, BLOCK_SIZE).map((block) => readBatch(file, block, column));
    return {
      documents: batches.reduce((sum, { documents }) => sum + documents, 0),
      ids: column.ids,
      metadata: new Map(schema.tables(SCHEMA.metadata).map((pair) => [pair.string(0), pair.string(1)])),
      batches: batches.filter(({ tokens }) => tokens > 0).map(({ tokens, offset }) => ({ tokens, offset })),
    };
  } catch (cause) {
    if (cause instanceof RangeError)
      throw damaged(path, 'its Arrow footer or a batch header has no valid structure', cause);
    throw ioError(cause, path, 'read');
  }
}

function readFooter(descriptor: number, size: number, path: string): { footer: FlatTable; end: number } {
  const head = readBytes(descriptor, 0, Math.min(HEAD_SIZE, size), path);
  if (!head.toString('latin1').startsWith(MAGIC))
    throw damaged(path, `it is not an Arrow IPC file, which would start with ${MAGIC}`);
  if (size < HEAD_SIZE + TAIL_SIZE) throw damaged(path, `it ends after ${size} bytes, before its footer`);
  const tail = readBytes(descriptor, size - TAIL_SIZE, TAIL_SIZE, path);
  if (!tail.toString('latin1').endsWith(MAGIC)) throw damaged(path, `it is cut off: it should end with ${MAGIC}`);
  const length = tail.readInt32LE(0);
  const end = size - TAIL_SIZE - length;
  if (length <= 0 || end < HEAD_SIZE) throw damaged(path, `its footer cannot have ${length} bytes`);
  return { footer: FlatTable.root(readBytes(descriptor, end, length, path)), end };
}

function readColumn(schema: FlatTable, path: string): Column {
  const wanted = 'its first column should be input_ids, a list of uint16 or uint32';
  if (schema.int16(SCHEMA.endianness) !== 0)
    throw damaged(path, 'its numbers are big endian, they should be little endian');
  const [field] = schema.tables(SCHEMA.fields);
  if (field?.string(FIELD.name) !== 'input_ids') throw damaged(path, wanted);
  const typeCode = field.uint8(FIELD.typeCode);
  if ((typeCode !== TYPE_LIST && typeCode !== TYPE_LARGE_LIST) || field.has(FIELD.dictionary))
    throw damaged(path, wanted);
  const [item] = field.tables(FIELD.children);
  const integer = item?.uint8(FIELD.typeCode) === TYPE_INTEGER ? item.table(FIELD.type) : undefined;
  const bits = integer?.int32(INTEGER.bits);
  if (integer === undefined || integer.uint8(INTEGER.signed) !== 0 || item?.has(FIELD.dictionary))
    throw damaged(path, wanted);
  if (bits !== 16 && bits !== 32) throw damaged(path, wanted);
  return { ids: `uint${bits}`, offsetSize: typeCode === TYPE_LIST ? 4 : 8 };
}

/** `block` is the footer's struct: offset of the message, length of its header, length of its body. */
function readBatch(file: ArrowFile, block: DataView, column: Column): BatchLocation & { documents: number } {
  const { descriptor, path } = file;
  const [offset, headerLength, bodyLength] = [int64At(block, 0), block.getInt32(8, true), int64At(block, 16)];
  const body = offset + headerLength;
  if (headerLength < 8 || body + bodyLength > file.end)
    throw damaged(path, `a batch at byte ${offset} reaches beyond its end`);
  const header = readBytes(descriptor, offset, headerLength, path);
  const prefix = header.readUInt32LE(0) === CONTINUATION ? 8 : 4;
  const message = FlatTable.root(header.subarray(prefix));
  const batch = message.table(MESSAGE.header);
  if (batch === undefined || message.uint8(MESSAGE.headerCode) !== HEADER_RECORD_BATCH)
    throw damaged(path, `there is no record batch at byte ${offset}`);
  if (message.int64(MESSAGE.bodyLength) !== bodyLength)
    throw damaged(path, `the batch at byte ${offset} has two lengths`);
  if (batch.has(RECORD_BATCH.compression))
    throw new LlmxError('LLMX_DATASET_DAMAGED', `"${path}" is compressed, so that its tokens have no fixed places.`, {
      hint: 'Write it without compression.',
    });
  return locateIds(file, batch, { start: body, length: bodyLength }, column);
}

/**
 * The first two nodes of a batch are the list and its items; its first four buffers are the validity and offsets of the
 * list, the validity and values of the items. The ids of all rows lie in one piece, from the first offset to the last.
 */
function locateIds(
  file: ArrowFile,
  batch: FlatTable,
  body: { start: number; length: number },
  { ids, offsetSize }: Column,
): BatchLocation & { documents: number } {
  const { descriptor, path } = file;
  const documents = batch.int64(RECORD_BATCH.length);
  if (documents === 0) return { documents, tokens: 0, offset: body.start };
  const [rows, items] = batch.structs(RECORD_BATCH.nodes, PAIR_SIZE);
  const [, offsets, , values] = batch
    .structs(RECORD_BATCH.buffers, PAIR_SIZE)
    .map((buffer) => bufferAt(buffer, body, path));
  if (
    rows === undefined ||
    items === undefined ||
    offsets === undefined ||
    values === undefined ||
    int64At(rows, 0) !== documents
  )
    throw damaged(path, `the batch with its body at byte ${body.start} lacks parts of input_ids`);
  if (int64At(rows, 8) > 0 || int64At(items, 8) > 0)
    throw damaged(path, 'input_ids has null values, it should have none');
  if (offsets.length < offsetSize * (documents + 1)) throw damaged(path, 'a batch has fewer list offsets than rows');
  const first = readOffset(descriptor, offsets.start, offsetSize, path);
  const last = readOffset(descriptor, offsets.start + offsetSize * documents, offsetSize, path);
  const width = ids === 'uint16' ? 2 : 4;
  if (first > last || last > int64At(items, 0) || last * width > values.length)
    throw damaged(path, `the list offsets of a batch, ${first} to ${last}, reach beyond its ${int64At(items, 0)} ids`);
  return { documents, tokens: last - first, offset: values.start + first * width };
}

function bufferAt(buffer: DataView, body: { start: number; length: number }, path: string) {
  const [offset, length] = [int64At(buffer, 0), int64At(buffer, 8)];
  if (offset + length > body.length) throw damaged(path, `a buffer reaches beyond the batch at byte ${body.start}`);
  return { start: body.start + offset, length };
}

function readOffset(descriptor: number, position: number, size: 4 | 8, path: string): number {
  const bytes = readBytes(descriptor, position, size, path);
  const value = size === 8 ? Number(bytes.readBigInt64LE(0)) : bytes.readInt32LE(0);
  if (value < 0 || !Number.isSafeInteger(value)) throw new RangeError(`${value} is not a list offset.`);
  return value;
}

function readBytes(descriptor: number, position: number, length: number, path: string): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  const count = readFully(descriptor, bytes, position);
  if (count < length) throw damaged(path, `it ends at byte ${position + count}, within a part that it should hold`);
  return bytes;
}
