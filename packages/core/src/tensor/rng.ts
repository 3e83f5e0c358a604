import { createHash } from 'node:crypto';

import type { Rng } from '../plugin/types.ts';
import { tf } from './tf.ts';

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds over four 32-bit
// words, keyed by two. Constants from the paper's table 2.
const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** High 32 bits of the unsigned product, from 16-bit halves since a double holds 53 bits. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const cross = aHigh * bLow + ((aLow * bLow) >>> 16);
  const middle = aLow * bHigh + (cross & 0xffff);
  return (aHigh * bHigh + Math.floor(cross / 0x10000) + Math.floor(middle / 0x10000)) >>> 0;
}

export interface RandomKey {
  readonly low: number;
  readonly high: number;
}

/**
 * Writes the four 32-bit words of block `counter` (an integer below 2^53) to `out`. The counter fills the two low words
 * of Philox's counter; the two high words are 0.
 */
export function philox(key: RandomKey, counter: number, out: Uint32Array): void {
  philoxWords(key, [counter >>> 0, Math.floor(counter / 0x100000000) >>> 0, 0, 0], out);
}

/** Philox4x32-10 of a whole 128-bit counter, low word first. */
export function philoxWords(
  key: RandomKey,
  counter: readonly [number, number, number, number],
  out: Uint32Array,
): void {
  let [x0, x1, x2, x3] = counter;
  let [k0, k1] = [key.low, key.high];
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, x0);
    const low0 = Math.imul(MULTIPLIER_0, x0) >>> 0;
    const high1 = multiplyHigh(MULTIPLIER_1, x2);
    const low1 = Math.imul(MULTIPLIER_1, x2) >>> 0;
    x0 = (high1 ^ x1 ^ k0) >>> 0;
    x1 = low1;
    x2 = (high0 ^ x3 ^ k1) >>> 0;
    x3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/** The key of a purpose: the first eight bytes, little endian, of the SHA-256 of `seed/purpose/path`. */
export function randomKey(seed: number, purpose: string, path: string): RandomKey {
  const digest = createHash('sha256').update(`${seed}/${purpose}/${path}`).digest();
  return { low: digest.readUInt32LE(0), high: digest.readUInt32LE(4) };
}

/** A 32-bit word as a double in (0, 1): (word + 1/2) / 2^32. */
const unit = (word: number): number => (word + 0.5) / 0x100000000;

/** Uniform values in (0, 1); value i is word i mod 4 of block floor(i / 4). `offset` is the first i. */
export function uniformValues(key: RandomKey, length: number, offset = 0): Float64Array {
  const values = new Float64Array(length);
  const words = new Uint32Array(4);
  let block = -1;
  for (let index = 0; index < length; index++) {
    const position = offset + index;
    const needed = Math.floor(position / 4);
    if (needed !== block) philox(key, (block = needed), words);
    values[index] = unit(words[position % 4]!);
  }
  return values;
}

// Values made at a time: enough that calls do not count, little enough that nothing large stands beside the result.
const CHUNK = 2 ** 14;

/** Standard normal values by the Box-Muller transform: uniforms 2j and 2j + 1 give normals 2j and 2j + 1. */
function fillNormal(key: RandomKey, target: Float32Array, stddev: number, mean: number): void {
  for (let start = 0; start < target.length; start += CHUNK) {
    const end = Math.min(target.length, start + CHUNK);
    const uniforms = uniformValues(key, CHUNK, start);
    for (let index = start; index < end; index += 2) {
      const radius = Math.sqrt(-2 * Math.log(uniforms[index - start]!));
      const angle = 2 * Math.PI * uniforms[index - start + 1]!;
      target[index] = mean + stddev * (radius * Math.cos(angle));
      if (index + 1 < end) target[index + 1] = mean + stddev * (radius * Math.sin(angle));
    }
  }
}

function fillUniform(key: RandomKey, target: Float32Array, low: number, high: number): void {
  for (let start = 0; start < target.length; start += CHUNK) {
    const part = target.subarray(start, start + CHUNK);
    const uniforms = uniformValues(key, part.length, start);
    for (let index = 0; index < part.length; index++) part[index] = low + (high - low) * uniforms[index]!;
  }
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Random tensors keyed by (seed, purpose, path); see docs/reference/formats.md, "Random numbers". */
export function keyedRng(seed: number, purpose: string, scope = ''): Rng {
  const key = (path: string): RandomKey => randomKey(seed, purpose, scope + path);
  return {
    normal(path, shape, stddev, mean = 0) {
      const values = new Float32Array(sizeOf(shape));
      fillNormal(key(path), values, stddev, mean);
      return tf.tensor(values, [...shape], 'float32');
    },
    uniform(path, shape, low, high) {
      const values = new Float32Array(sizeOf(shape));
      fillUniform(key(path), values, low, high);
      return tf.tensor(values, [...shape], 'float32');
    },
    scope: (prefix) => keyedRng(seed, purpose, `${scope}${prefix}.`),
  };
}
