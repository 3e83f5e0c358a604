import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { LlmxError } from '../errors/index.ts';
import { digestFile } from './durable-file.ts';
import { type HostTensor, type HostTensors, readSafetensors, writeSafetensors } from './safetensors.ts';

let folder: string;
let file: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-safetensors-'));
  file = path.join(folder, 'x.safetensors');
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const ARRAYS = { F64: Float64Array, F32: Float32Array, I32: Int32Array, U8: Uint8Array, BOOL: Uint8Array } as const;

/** Tensors of any type and small shape, filled with any bits. */
const tensor = fc
  .tuple(
    fc.constantFrom('F64', 'F32', 'I32', 'U8', 'BOOL'),
    fc.array(fc.nat(3), { maxLength: 3 }),
    fc.infiniteStream(fc.nat(255)),
  )
  .map(([dtype, shape, stream]): HostTensor => {
    const count = shape.reduce((product, size) => product * size, 1);
    const bytes = Uint8Array.from(stream.take(count * ARRAYS[dtype].BYTES_PER_ELEMENT));
    return { dtype, shape, data: new ARRAYS[dtype](bytes.buffer) } as HostTensor;
  });
const tensors = fc
  .uniqueArray(fc.tuple(fc.string({ unit: 'binary' }), tensor), { maxLength: 6, selector: ([name]) => name })
  .map((entries): HostTensors => new Map(entries));
const metadata = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string(), { noNullPrototype: true });

const bits = (read: HostTensors): Map<string, unknown> =>
  new Map(
    [...read].map(([name, { dtype, shape, data }]) => [name, [dtype, shape, Buffer.from(data.buffer).toString('hex')]]),
  );

test('what was written is read, bit for bit', () => {
  fc.assert(
    fc.property(tensors, metadata, (written, about) => {
      const digest = writeSafetensors(file, written, about);
      expect(digest).toEqual(digestFile(file));
      const read = readSafetensors(file);
      expect(bits(read.tensors)).toEqual(bits(written));
      expect(read.metadata).toEqual(about);
    }),
    { numRuns: 200 },
  );
});

test('a truncated file is always refused', () => {
  fc.assert(
    fc.property(tensors, fc.nat(), (written, cut) => {
      const { bytes } = writeSafetensors(file, written);
      fs.truncateSync(file, cut % bytes);
      expect(() => readSafetensors(file)).toThrow(expect.objectContaining({ code: 'LLMX_CHECKPOINT_DAMAGED' }));
    }),
    { numRuns: 200 },
  );
});

/** Bytes of the tensors in the file; 0 if it is refused as damaged. */
function outcome(): number {
  try {
    return [...readSafetensors(file).tensors.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
  } catch (error) {
    if (LlmxError.is(error) && error.code === 'LLMX_CHECKPOINT_DAMAGED') return 0;
    throw error;
  }
}

test('any flipped bit of a header is refused in words, or describes tensors within the file', () => {
  fc.assert(
    fc.property(tensors, fc.nat(), (written, flip) => {
      writeSafetensors(file, written);
      const content = fs.readFileSync(file);
      const headerBits = 8 * (8 + Number(content.readBigUInt64LE()));
      const bit = flip % headerBits;
      content.writeUInt8(content.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      fs.writeFileSync(file, content);
      expect(outcome()).toBeLessThanOrEqual(2 * content.length); // types of two bytes are widened to four
    }),
    { numRuns: 500 },
  );
});
