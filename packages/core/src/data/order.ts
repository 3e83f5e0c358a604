import { assert } from '../errors/index.ts';
import { philox, randomKey } from '../tensor/rng.ts';

const ROUNDS = 8;
const MAX_HALF_BITS = 20;

/** The 32-bit finalizer of MurmurHash3 (Appleby 2011): each bit of the input flips each bit of the result half of the time. */
function mix(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The eight words of blocks 0 and 1 of the generator keyed by (seed, `order`, epoch). */
function roundKeys(seed: number, epoch: number): Uint32Array {
  const key = randomKey(seed, 'order', String(epoch));
  const keys = new Uint32Array(ROUNDS);
  philox(key, 0, keys.subarray(0, 4));
  philox(key, 1, keys.subarray(4, 8));
  return keys;
}

/**
 * The order in which an epoch visits `count` windows, at most 2^40: a permutation of 0 .. count - 1, computed index by
 * index in constant memory. It is a balanced Feistel network over the smallest 4^h >= count,
 *
 *     (left, right) -> (right, left XOR (mix(right XOR key[round]) mod 2^h))     for each of eight rounds,
 *
 * applied again while its result is not below `count` (cycle walking; fewer than four times on average). See
 * docs/reference/formats.md, "Window order".
 */
export function windowOrder(seed: number, epoch: number, count: number): (index: number) => number {
  assert(
    Number.isSafeInteger(count) && count >= 1 && count <= 4 ** MAX_HALF_BITS,
    `There is no order of ${count} windows.`,
  );
  let half = 0;
  while (4 ** half < count) half++;
  const keys = roundKeys(seed, epoch);
  const [size, mask] = [2 ** half, 2 ** half - 1];
  const permute = (value: number): number => {
    let left = Math.floor(value / size);
    let right = value % size;
    for (let round = 0; round < ROUNDS; round++) [left, right] = [right, left ^ (mix(right ^ keys[round]!) & mask)];
    return left * size + right;
  };
  return (index) => {
    if (!(index >= 0 && index < count)) assert(false, `Window ${index} is not among ${count}.`);
    let value = permute(index);
    while (value >= count) value = permute(value);
    return value;
  };
}
