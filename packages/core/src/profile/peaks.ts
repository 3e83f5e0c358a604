/** What one thread of this machine can do at best, by JavaScript and WebAssembly. */
import { assert } from '../errors/index.ts';
import type { MachinePeaks } from '../plugin/backend-types.ts';

declare const WebAssembly: {
  Module: new (code: Uint8Array) => object;
  Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
};

// Two of these are more than the caches of one core hold.
const COPIED_BYTES = 2 ** 26;
const COPIES = 8;

// Enough independent sums that none waits for the one before; with the two factors they fit 16 registers.
const SUMS = 12;
const LANES = 4;
const ROUNDS = 200_000;
/** Where x = x * 0.5 + 1 ends. */
const FIXED_POINT = 2;
/** For how long the loop runs: the optimised code takes the place of the first one meanwhile. */
const LOOP_MILLISECONDS = 100;

// WebAssembly in bytes: types, then instructions.
const I32 = 0x7f;
const F32 = 0x7d;
const V128 = 0x7b;
const FUNCTION = 0x60;
const NO_RESULT = 0x40;
const LOOP = 0x03;
const END = 0x0b;
const BRANCH_IF = 0x0d;
const LOCAL_GET = 0x20;
const LOCAL_SET = 0x21;
const LOCAL_TEE = 0x22;
const I32_CONST = 0x41;
const F32_CONST = 0x43;
const I32_SUB = 0x6b;
const F32X4_SPLAT = [0xfd, 0x13];
const F32X4_FIRST_LANE = [0xfd, 0x1f, 0];
const F32X4_ADD = [0xfd, 0xe4, 0x01];
const F32X4_MUL = [0xfd, 0xe6, 0x01];

/** A vector of one constant, little-endian float32, in a local variable. */
const constant = (bytes: readonly number[], local: number): number[] =>
  [[F32_CONST, ...bytes], F32X4_SPLAT, [LOCAL_SET, local]].flat();

/** A section of a module: its id, its length, its content. */
const section = (id: number, content: readonly number[]): number[] => [id, ...length(content), ...content];

/** Length of some bytes as LEB128, two bytes long. */
const length = ({ length: count }: readonly number[]): number[] => [(count & 0x7f) | 0x80, count >> 7];

/**
 * A WebAssembly module with one function `run(rounds: i32): f32` of plain vector arithmetic:
 *
 *     repeat rounds times: s[i] = s[i] * 0.5 + 1, for every i
 *     return the first lane of s[0] + s[1] + ...
 */
function arithmeticLoop(): Uint8Array {
  const [scale, shift] = [SUMS + 1, SUMS + 2];
  const sums = Array.from({ length: SUMS }, (_, index) => index + 1); // local 0 is the counter
  const update = (sum: number): number[] =>
    [[LOCAL_GET, sum, LOCAL_GET, scale], F32X4_MUL, [LOCAL_GET, shift], F32X4_ADD, [LOCAL_SET, sum]].flat();
  const code = [
    [1, SUMS + 2, V128], // one group of local variables
    constant([0x00, 0x00, 0x00, 0x3f], scale),
    constant([0x00, 0x00, 0x80, 0x3f], shift),
    [LOOP, NO_RESULT],
    sums.flatMap(update),
    [LOCAL_GET, 0, I32_CONST, 1, I32_SUB, LOCAL_TEE, 0], // counts down
    [BRANCH_IF, 0, END], // again unless the counter is 0
    [LOCAL_GET, 1],
    sums.slice(1).flatMap((sum) => [LOCAL_GET, sum, ...F32X4_ADD]),
    F32X4_FIRST_LANE,
    [END],
  ].flat();
  const name = [...Buffer.from('run')];
  const module = [
    [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // magic number and version
    section(1, [1, FUNCTION, 1, I32, 1, F32]), // types
    section(3, [1, 0]), // functions, by type
    section(7, [1, name.length, ...name, 0, 0]), // exports
    section(10, [1, ...length(code), ...code]), // code
  ];
  return Uint8Array.from(module.flat());
}

/** Billions of float32 operations per second of one thread's vectors, without fused multiply-adds. */
function arithmetic(now: () => number): number {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(arithmeticLoop()));
  const run = exports['run'] as (rounds: number) => number;
  let best = 0;
  for (const begin = now(); now() - begin < LOOP_MILLISECONDS;) {
    const start = now();
    const sum = run(ROUNDS);
    assert(sum === SUMS * FIXED_POINT, `The arithmetic loop gave ${sum}.`);
    best = Math.max(best, (2 * LANES * SUMS * ROUNDS) / (now() - start));
  }
  return best / 1e6;
}

/** Gigabytes per second that one thread reads and writes while copying. */
function bandwidth(now: () => number): number {
  const [from, to] = [new Uint8Array(COPIED_BYTES).fill(1), new Uint8Array(COPIED_BYTES).fill(2)];
  let best = 0;
  for (let copy = 0; copy < COPIES; copy++) {
    const start = now();
    to.set(from);
    best = Math.max(best, (2 * COPIED_BYTES) / (now() - start));
  }
  return best / 1e6;
}

/**
 * Measures one thread: memory by copying, arithmetic by a WebAssembly loop. Takes about a third of a second and 128 MiB.
 *
 * @param now milliseconds of a clock that never goes back
 */
export const measurePeaks = (now: () => number): MachinePeaks => ({
  gflops: arithmetic(now),
  gigabytesPerSecond: bandwidth(now),
  threads: 1,
});
