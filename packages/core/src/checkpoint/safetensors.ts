/**
 * The safetensors format: 8 bytes little-endian header length, a JSON header padded with spaces, the data. Typed arrays
 * are written as they lie in memory, since every platform that Node supports for tensors is little endian.
 */
import fs from 'node:fs';

import { assert } from '../errors/index.ts';
import { type FileDigest, readAll, writeSynced } from './durable-file.ts';
import {
  damaged,
  elements,
  readHeader,
  type SafetensorsHeader,
  type TensorEntry,
  unreadable,
} from './safetensors-header.ts';

interface Arrays {
  F64: Float64Array;
  F32: Float32Array;
  I32: Int32Array;
  U8: Uint8Array;
  /** One byte each, 0 or 1. */
  BOOL: Uint8Array;
}
/** Element types that tensors have in memory. */
export type Dtype = keyof Arrays;

/** A tensor on the host, row-major. */
export type HostTensor = {
  [D in Dtype]: { readonly dtype: D; readonly shape: readonly number[]; readonly data: Arrays[D] };
}[Dtype];

/** Tensors by name, in the order in which they are stored. */
export type HostTensors = ReadonlyMap<string, HostTensor>;

export interface Safetensors {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: HostTensors;
}

const HEADER_ALIGNMENT = 8;

function encodeHeader(tensors: HostTensors, metadata: Readonly<Record<string, string>>): Uint8Array {
  let end = 0;
  const entries: [string, unknown][] = Object.keys(metadata).length > 0 ? [['__metadata__', metadata]] : [];
  for (const [name, { dtype, shape, data }] of tensors) {
    assert(name !== '__metadata__', 'A tensor cannot be called __metadata__.');
    assert(
      elements(shape) === data.length,
      `Tensor "${name}" has ${data.length} elements, not shape [${shape.join(', ')}].`,
    );
    entries.push([name, { dtype, shape, data_offsets: [end, (end += data.byteLength)] }]);
  }
  // Members are joined by hand: an object would move names such as "0" to the front.
  const members = entries.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const json = Buffer.from(`{${members.join(',')}}`);
  const padded = Math.ceil(json.length / HEADER_ALIGNMENT) * HEADER_ALIGNMENT;
  const header = Buffer.alloc(8 + padded, ' ');
  header.writeBigUInt64LE(BigInt(padded));
  json.copy(header, 8);
  return header;
}

function* encode(tensors: HostTensors, metadata: Readonly<Record<string, string>>): Generator<Uint8Array> {
  yield encodeHeader(tensors, metadata);
  for (const { data } of tensors.values()) yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * Writes a file tensor by tensor and syncs it. The same tensors give the same bytes.
 *
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export const writeSafetensors = (
  file: string,
  tensors: HostTensors,
  metadata: Readonly<Record<string, string>> = {},
): FileDigest => writeSynced(file, encode(tensors, metadata));

/** The bits of a half-precision number as those of the same single-precision number. */
function widenHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13); // infinity, NaN
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  const shift = Math.clz32(fraction) - 21; // brings the leading 1 of a subnormal to bit 10
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}

const widened = (bytes: ArrayBuffer, widen: (bits: number) => number): Float32Array =>
  new Float32Array(Int32Array.from(new Uint16Array(bytes), widen).buffer);

function narrowed(bytes: ArrayBuffer, name: string, file: string): Int32Array {
  const words = new Int32Array(bytes); // low, high, low, high, ...
  return Int32Array.from({ length: words.length / 2 }, (_, index) => {
    const low = words[2 * index] ?? 0;
    if (words[2 * index + 1] !== low >> 31)
      throw damaged(file, `tensor ${JSON.stringify(name)} holds integers beyond 32 bits, which llmx cannot use`);
    return low;
  });
}

function decode(bytes: ArrayBuffer, name: string, { dtype, shape }: TensorEntry, file: string): HostTensor {
  switch (dtype) {
    case 'F64':
      return { dtype, shape, data: new Float64Array(bytes) };
    case 'F32':
      return { dtype, shape, data: new Float32Array(bytes) };
    case 'I32':
      return { dtype, shape, data: new Int32Array(bytes) };
    case 'U8':
    case 'BOOL':
      return { dtype, shape, data: new Uint8Array(bytes) };
    case 'F16':
      return { dtype: 'F32', shape, data: widened(bytes, widenHalf) };
    case 'BF16':
      return { dtype: 'F32', shape, data: widened(bytes, (bits) => bits << 16) };
    case 'I64':
      return { dtype: 'I32', shape, data: narrowed(bytes, name, file) };
  }
}

function withFile<T>(file: string, body: (fd: number) => T): T {
  try {
    const fd = fs.openSync(file, 'r');
    try {
      return body(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

/**
 * Reads a file's header alone.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`, `LLMX_IO_FAILED`
 */
export const readSafetensorsHeader = (file: string): SafetensorsHeader => withFile(file, (fd) => readHeader(fd, file));

/**
 * Reads a whole file, each tensor into an array of its own. BF16 and F16 become F32; I64 becomes I32 where it fits.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`, `LLMX_IO_FAILED`
 */
export function readSafetensors(file: string): Safetensors {
  return withFile(file, (fd) => {
    const { metadata, tensors } = readHeader(fd, file);
    const loaded = new Map<string, HostTensor>();
    for (const [name, entry] of tensors) {
      const bytes = new ArrayBuffer(entry.bytes);
      if (readAll(fd, new Uint8Array(bytes), entry.position) < entry.bytes)
        throw damaged(file, `tensor ${JSON.stringify(name)} ends early`);
      loaded.set(name, decode(bytes, name, entry, file));
    }
    return { metadata, tensors: loaded };
  });
}
