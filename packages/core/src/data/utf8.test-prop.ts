import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { textProblem, withoutMark } from './utf8.ts';

const decoder = new TextDecoder('utf-8', { fatal: true });
function isValid(bytes: Uint8Array): boolean {
  try {
    decoder.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Bytes that are often almost UTF-8: characters of all lengths, lead bytes, continuations. */
const nearlyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary', maxLength: 3 }).map((text) => [...Buffer.from(text)]),
      fc.constantFrom([0xc0], [0xc2], [0xe0], [0xed, 0xa0, 0x80], [0xf0, 0x80], [0xf4, 0x90], [0xf5], [0x80], [0xbf]),
    ),
  )
  .map((parts) => Uint8Array.from(parts.flat()).filter((byte) => byte !== 0));

test('agrees with the strict decoder', () => {
  fc.assert(
    fc.property(nearlyText, (bytes) => {
      expect(textProblem(bytes) === undefined).toBe(isValid(bytes));
    }),
    { numRuns: 2000 },
  );
});

test('names the first byte after the longest valid start', () => {
  fc.assert(
    fc.property(nearlyText, (bytes) => {
      const found = textProblem(bytes);
      fc.pre(found !== undefined);
      expect(isValid(bytes.subarray(0, found.offset))).toBe(true);
      for (let end = found.offset + 1; end <= Math.min(bytes.length, found.offset + 4); end++)
        expect(isValid(bytes.subarray(0, end))).toBe(false);
    }),
    { numRuns: 2000 },
  );
});

test('NUL bytes and byte order marks', () => {
  expect(textProblem(Buffer.from('ab\0c'))).toEqual({ offset: 2, problem: 'holds a NUL byte' });
  expect(Buffer.from(withoutMark(Buffer.from('\uFEFFab'))).toString()).toBe('ab');
  expect(withoutMark(Uint8Array.of(0xef, 0xbb))).toHaveLength(2);
});
