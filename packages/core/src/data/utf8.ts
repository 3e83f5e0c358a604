/** What makes bytes no text: the offset of the first such byte, and a clause about it. */
export interface TextProblem {
  readonly offset: number;
  readonly problem: string;
}

/** The first byte that cannot stand in a text file: a NUL, or one that is not valid UTF-8 (Unicode 15, table 3-7). */
export function textProblem(bytes: Uint8Array): TextProblem | undefined {
  let offset = 0;
  while (offset < bytes.length) {
    const lead = bytes[offset]!;
    if (lead > 0 && lead < 0x80) {
      offset++;
      continue;
    }
    if (lead === 0) return { offset, problem: 'holds a NUL byte' };
    const length = sequenceLength(bytes, offset, lead);
    if (length === 0) return { offset, problem: 'is not valid UTF-8' };
    offset += length;
  }
  return undefined;
}

/** Bytes of the character of several bytes that starts at `offset`; 0 if it is not well formed. */
function sequenceLength(bytes: Uint8Array, offset: number, lead: number): number {
  const length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (offset + length > bytes.length) return 0;
  for (let index = 1; index < length; index++) {
    const byte = bytes[offset + index]!;
    // The second byte has narrower limits after some first ones: no overlong forms, surrogates, or values beyond Unicode.
    const low = index > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const high = index > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (byte < low || byte > high) return 0;
  }
  return length;
}

/** `bytes` without a byte order mark. */
export const withoutMark = (bytes: Uint8Array): Uint8Array =>
  bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
