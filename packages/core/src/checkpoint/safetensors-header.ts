import fs from 'node:fs';

import { ioError, LlmxError } from '../errors/index.ts';
import { readAll } from './durable-file.ts';

/** Bytes per element of the element types that can be read. */
export const ELEMENT_BYTES = { F64: 8, I64: 8, F32: 4, I32: 4, F16: 2, BF16: 2, U8: 1, BOOL: 1 } as const;
export type FileDtype = keyof typeof ELEMENT_BYTES;

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;

/** Where a tensor lies in its file. */
export interface TensorEntry {
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
  /** Position of the first byte in the file. */
  readonly position: number;
  readonly bytes: number;
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

/** The error for a file that is not what it should be; `reason` is a clause such as `the header ends early`. */
export const damaged = (file: string, reason: string, cause?: unknown): LlmxError =>
  new LlmxError('LLMX_CHECKPOINT_DAMAGED', `"${file}" is damaged: ${reason}.`, {
    hint: 'Get the file again from where it came from.',
    cause,
  });

/** The error to throw where a file could not be opened or read. */
export const unreadable = (file: string, cause: unknown): Error =>
  cause instanceof Error && 'code' in cause && cause.code === 'ENOENT'
    ? damaged(file, 'it is missing', cause)
    : ioError(cause, file, 'read');

/** The number of elements, or `undefined` where it is beyond what a double counts exactly. */
export function elements(shape: readonly number[]): number | undefined {
  const product = shape.reduce((count, size) => count * size, 1);
  return Number.isSafeInteger(product) ? product : undefined;
}

function readHeaderText(fd: number, file: string, fileBytes: number): { text: string; dataStart: number } {
  const length = Buffer.alloc(LENGTH_BYTES);
  if (readAll(fd, length, 0) < LENGTH_BYTES) throw damaged(file, `it has ${fileBytes} bytes, too few for a header`);
  const headerBytes = Number(length.readBigUInt64LE());
  const limit = Math.min(fileBytes - LENGTH_BYTES, MAX_HEADER_BYTES);
  if (headerBytes > limit) throw damaged(file, `it names a header of ${headerBytes} bytes where at most ${limit} fit`);
  const header = new Uint8Array(headerBytes);
  if (readAll(fd, header, LENGTH_BYTES) < headerBytes) throw damaged(file, 'the header ends early');
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(header), dataStart: LENGTH_BYTES + headerBytes };
  } catch (cause) {
    throw damaged(file, 'the header is not UTF-8', cause);
  }
}

function parseObject(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw damaged(file, 'the header is not JSON', cause);
  }
  if (typeof value !== 'object' || value === null || !text.startsWith('{'))
    throw damaged(file, 'the header is not a JSON object');
  return value as Record<string, unknown>;
}

const isRecordOfStrings = (value: unknown): value is Record<string, string> =>
  typeof value === 'object' && value !== null && Object.values(value).every((item) => typeof item === 'string');

const areCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

function parseEntry(value: unknown, name: string, dataStart: number, file: string): TensorEntry {
  const tensor = `tensor ${JSON.stringify(name)}`;
  const { dtype, shape, data_offsets: offsets } = Object(value) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !areCounts(shape) || !areCounts(offsets) || offsets.length !== 2)
    throw damaged(file, `${tensor} is not described by dtype, shape and data_offsets`);
  const [begin = 0, end = 0] = offsets;
  if (!Object.hasOwn(ELEMENT_BYTES, dtype)) {
    const known = Object.keys(ELEMENT_BYTES).join(', ');
    throw damaged(file, `${tensor} has element type ${JSON.stringify(dtype)}, known are ${known}`);
  }
  const count = elements(shape);
  const bytes = (count ?? Number.NaN) * ELEMENT_BYTES[dtype as FileDtype];
  if (end - begin !== bytes)
    throw damaged(file, `${tensor} of shape [${shape.join(', ')}] and type ${dtype} has ${end - begin} bytes`);
  return { dtype: dtype as FileDtype, shape, position: dataStart + begin, bytes };
}

/** Tensors must fill the data part without gaps or overlaps; then no byte of a file is unaccounted for. */
function checkLayout(
  entries: readonly [string, TensorEntry][],
  dataStart: number,
  fileBytes: number,
  file: string,
): void {
  let position = dataStart;
  for (const [name, entry] of entries) {
    if (entry.position !== position)
      throw damaged(file, `tensor ${JSON.stringify(name)} starts at byte ${entry.position}, not at ${position}`);
    position += entry.bytes;
  }
  if (position !== fileBytes) throw damaged(file, `it has ${fileBytes} bytes, its header describes ${position}`);
}

/**
 * Reads and checks the header of an open safetensors file. Nothing larger than the file is allocated.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`
 */
export function readHeader(fd: number, file: string): SafetensorsHeader {
  const fileBytes = fs.fstatSync(fd).size;
  const { text, dataStart } = readHeaderText(fd, file, fileBytes);
  const { __metadata__: metadata = {}, ...described } = parseObject(text, file);
  if (!isRecordOfStrings(metadata)) throw damaged(file, '__metadata__ is not a record of strings');
  const entries = Object.entries(described)
    .map(([name, value]): [string, TensorEntry] => [name, parseEntry(value, name, dataStart, file)])
    // An empty tensor shares its position with the next one and comes first.
    .toSorted(([, a], [, b]) => a.position - b.position || a.bytes - b.bytes);
  checkLayout(entries, dataStart, fileBytes, file);
  return { metadata, tensors: new Map(entries) };
}
