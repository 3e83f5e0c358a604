import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type HostTensors, readSafetensors, readSafetensorsHeader, writeSafetensors } from './safetensors.ts';

let folder: string;
beforeAll(() => void (folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-safetensors-'))));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** A file put together by hand: header length, header, data. */
function fileOf(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0), length?: bigint): string {
  const json = Buffer.from(header);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  const file = path.join(folder, 'made.safetensors');
  fs.writeFileSync(file, Buffer.concat([size, json, data]));
  return file;
}

function errorOf(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return `${code} ${message.replaceAll(folder, '')}`;
  }
  throw new Error('Nothing was thrown.');
}

const bytesOf = (data: ArrayBufferView): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

test('writes the documented bytes', () => {
  const file = path.join(folder, 'written.safetensors');
  const tensors: HostTensors = new Map([['w', { dtype: 'I32', shape: [2], data: Int32Array.of(1, -1) }]]);
  const digest = writeSafetensors(file, tensors, { made: 'by hand' });
  const written = fs.readFileSync(file);
  expect(written.readBigUInt64LE()).toBe(88n);
  expect(written.subarray(8, 96).toString()).toBe(
    '{"__metadata__":{"made":"by hand"},"w":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}',
  );
  expect([...written.subarray(96)]).toEqual([1, 0, 0, 0, 255, 255, 255, 255]);
  expect(digest.bytes).toBe(written.length);
});

test('pads the header with spaces to a multiple of 8 bytes', () => {
  const file = path.join(folder, 'padded.safetensors');
  writeSafetensors(file, new Map());
  expect(fs.readFileSync(file).toString('latin1')).toBe('\x08\0\0\0\0\0\0\0{}      ');
  expect(readSafetensors(file)).toEqual({ metadata: {}, tensors: new Map() });
});

test('reads tensors at odd positions, in the order of the data', () => {
  const data = Buffer.concat([
    Uint8Array.of(1, 0, 1),
    bytesOf(Float64Array.of(Math.PI)),
    bytesOf(Float32Array.of(0.5, -0)),
  ]);
  const { metadata, tensors } = readSafetensors(
    fileOf(
      `{"f":{"dtype":"F32","shape":[1,2],"data_offsets":[11,19]},"b":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},
        "e":{"dtype":"U8","shape":[0,4],"data_offsets":[3,3]},"d":{"dtype":"F64","shape":[],"data_offsets":[3,11]},
        "__metadata__":{"a":"b"}}`,
      data,
    ),
  );
  expect(metadata).toEqual({ a: 'b' });
  expect([...tensors]).toEqual([
    ['b', { dtype: 'BOOL', shape: [3], data: Uint8Array.of(1, 0, 1) }],
    ['e', { dtype: 'U8', shape: [0, 4], data: new Uint8Array(0) }],
    ['d', { dtype: 'F64', shape: [], data: Float64Array.of(Math.PI) }],
    ['f', { dtype: 'F32', shape: [1, 2], data: Float32Array.of(0.5, -0) }],
  ]);
});

test('widens BF16 and F16 to F32 and narrows I64 to I32', () => {
  const bf16 = Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0x0001);
  const f16 = Uint16Array.of(0x3c00, 0xc000, 0x7c00, 0x0001, 0x03ff, 0x8000, 0x3555, 0x7bff);
  const i64 = BigInt64Array.of(7n, -(2n ** 31n));
  const file = fileOf(
    `{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[8],"data_offsets":[8,24]},
      "c":{"dtype":"I64","shape":[2],"data_offsets":[24,40]}}`,
    Buffer.concat([bytesOf(bf16), bytesOf(f16), bytesOf(i64)]),
  );
  const { tensors } = readSafetensors(file);
  expect(tensors.get('a')).toEqual({ dtype: 'F32', shape: [4], data: Float32Array.of(1, -2, Infinity, 2 ** -133) });
  const halves = [1, -2, Infinity, 2 ** -24, 1023 * 2 ** -24, -0, 0x555 * 2 ** -12, 65504];
  expect(tensors.get('b')).toEqual({ dtype: 'F32', shape: [8], data: Float32Array.from(halves) });
  expect(tensors.get('c')).toEqual({ dtype: 'I32', shape: [2], data: Int32Array.of(7, -(2 ** 31)) });
  expect(readSafetensorsHeader(file).tensors.get('c')).toMatchObject({ dtype: 'I64', shape: [2], bytes: 16 });
});

test('keeps NaN payloads', () => {
  const file = path.join(folder, 'nan.safetensors');
  const bits = Uint32Array.of(0x7fc00001, 0xff800001, 0x80000000);
  writeSafetensors(file, new Map([['x', { dtype: 'F32', shape: [3], data: new Float32Array(bits.buffer) }]]));
  const data = readSafetensors(file).tensors.get('x')?.data ?? new Uint8Array(0);
  expect(new Uint32Array(data.buffer)).toEqual(bits);
});

describe('refuses', () => {
  const one = (dtype: string, shape: string, offsets: string): string =>
    `{"x":{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}}`;
  const read = (header: string | Uint8Array, data?: Uint8Array, length?: bigint) =>
    errorOf(() => readSafetensors(fileOf(header, data, length)));

  test('a missing, an empty and a truncated file', () => {
    expect(errorOf(() => readSafetensors(path.join(folder, 'none')))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/none" is damaged: it is missing."`,
    );
    expect(errorOf(() => readSafetensors(folder))).toMatchInlineSnapshot(
      `"LLMX_IO_FAILED Could not read "": illegal operation on a directory (EISDIR)."`,
    );
    fs.writeFileSync(path.join(folder, 'short'), Uint8Array.of(1, 2, 3));
    expect(errorOf(() => readSafetensors(path.join(folder, 'short')))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/short" is damaged: it has 3 bytes, too few for a header."`,
    );
    expect(read(one('F32', '[2]', '[0,8]'), new Uint8Array(7))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: it has 69 bytes, its header describes 70."`,
    );
  });

  test('header lengths beyond the file or the limit, before anything of that size is allocated', () => {
    expect(read('{}', undefined, 3n)).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: it names a header of 3 bytes where at most 2 fit."`,
    );
    expect(read('{}', undefined, 2n ** 63n)).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: it names a header of 9223372036854776000 bytes where at most 2 fit."`,
    );
    const file = fileOf('{}', undefined, 100_000_001n);
    fs.truncateSync(file, 200_000_000); // sparse
    expect(errorOf(() => readSafetensors(file))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: it names a header of 100000001 bytes where at most 100000000 fit."`,
    );
  });

  test('headers that are not JSON objects', () => {
    expect(read(Uint8Array.of(0x7b, 0xff))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: the header is not UTF-8."`,
    );
    expect(read('{"x":')).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: the header is not JSON."`,
    );
    expect(read('[]')).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: the header is not a JSON object."`,
    );
    expect(read('null')).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: the header is not a JSON object."`,
    );
    expect(read('{"__metadata__":null}')).toContain('__metadata__ is not a record of strings');
    expect(read('{"__metadata__":{"a":1}}')).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: __metadata__ is not a record of strings."`,
    );
  });

  test('entries that make no sense', () => {
    expect(read('{"x":{"dtype":"F32","shape":[1]}}')).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" is not described by dtype, shape and data_offsets."`,
    );
    expect(read(one('F32', '[-1]', '[0,4]'), new Uint8Array(4))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" is not described by dtype, shape and data_offsets."`,
    );
    expect(read(one('F32', '[1.5]', '[0,6]'), new Uint8Array(6))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" is not described by dtype, shape and data_offsets."`,
    );
    expect(read(one('C64', '[1]', '[0,8]'), new Uint8Array(8))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" has element type "C64", known are F64, I64, F32, I32, F16, BF16, U8, BOOL."`,
    );
    expect(read(one('toString', '[1]', '[0,8]'), new Uint8Array(8))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" has element type "toString", known are F64, I64, F32, I32, F16, BF16, U8, BOOL."`,
    );
    expect(read(one('F32', '[3]', '[0,8]'), new Uint8Array(8))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" of shape [3] and type F32 has 8 bytes."`,
    );
    expect(read(one('U8', '[9007199254740991,9007199254740991]', '[0,8]'), new Uint8Array(8))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" of shape [9007199254740991, 9007199254740991] and type U8 has 8 bytes."`,
    );
  });

  test('gaps, overlaps and bytes that no tensor owns', () => {
    const two = (first: string, second: string) =>
      `{"a":{"dtype":"U8","shape":[4],"data_offsets":${first}},"b":{"dtype":"U8","shape":[4],"data_offsets":${second}}}`;
    expect(read(two('[0,4]', '[5,9]'), new Uint8Array(9))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "b" starts at byte 118, not at 117."`,
    );
    expect(read(two('[0,4]', '[3,7]'), new Uint8Array(7))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "b" starts at byte 116, not at 117."`,
    );
    expect(read(two('[1,5]', '[5,9]'), new Uint8Array(9))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "a" starts at byte 114, not at 113."`,
    );
    expect(read(two('[0,4]', '[4,8]'), new Uint8Array(9))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: it has 122 bytes, its header describes 121."`,
    );
  });

  test('integers beyond 32 bits', () => {
    expect(read(one('I64', '[1]', '[0,8]'), bytesOf(BigInt64Array.of(2n ** 31n)))).toMatchInlineSnapshot(
      `"LLMX_CHECKPOINT_DAMAGED "/made.safetensors" is damaged: tensor "x" holds integers beyond 32 bits, which llmx cannot use."`,
    );
  });
});

test('names a file that cannot be written', () => {
  const file = path.join(folder, 'no', 'such', 'folder');
  expect(errorOf(() => writeSafetensors(file, new Map()))).toMatchInlineSnapshot(
    `"LLMX_IO_FAILED Could not write "/no/such/folder": no such file or directory (ENOENT)."`,
  );
});
