import { array, assert, integer, nat, oneof, property, record } from 'fast-check';
import { expect, test } from 'vitest';

import { type Block, Memory } from './memory.ts';

const MIB = 2 ** 20;

/** Arenas at made-up addresses, some of which lie side by side. */
function fakeAddresses(): (buffer: ArrayBuffer) => number {
  let next = 1000;
  return (buffer) => {
    const address = next;
    next += buffer.byteLength;
    return address;
  };
}

test('pieces in use never overlap, are aligned, and all memory comes together again', () => {
  const size = oneof(integer({ min: 0, max: 5000 }), integer({ min: 0, max: 40 * MIB }));
  const action = record({ size, release: nat() });
  assert(
    property(array(action, { maxLength: 60 }), (actions) => {
      const memory = new Memory(fakeAddresses());
      const held: Block[] = [];
      for (const step of actions) {
        held.push(memory.allocate(step.size));
        if (step.release % 3 > 0) memory.release(held.splice(step.release % held.length, 1)[0]!);
        const sorted = held.toSorted((a, b) => a.address - b.address);
        sorted.forEach((block, index) => {
          expect(block.address % 64).toBe(0);
          expect(block.offset + block.bytes).toBeLessThanOrEqual(block.buffer.byteLength);
          const after = sorted[index + 1];
          if (after !== undefined) expect(block.address + block.bytes).toBeLessThanOrEqual(after.address);
        });
        expect(memory.usedBytes).toBe(held.reduce((sum, { bytes }) => sum + bytes, 0));
      }
      for (const block of held) memory.release(block);
      const reserved = memory.reservedBytes;
      expect(memory.usedBytes).toBe(0);
      // The first arena is whole again.
      if (reserved > 0) memory.allocate(64 * MIB);
      expect(memory.reservedBytes).toBe(reserved);
    }),
    { numRuns: 60 },
  );
});
