// Injects faults into file operations of this thread: kills the process at one of them, or lets them fail. Imported
// before core, so that core's `node:fs` is the changed one.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const OPERATIONS = [
  'closeSync',
  'fstatSync',
  'fsyncSync',
  'ftruncateSync',
  'linkSync',
  'mkdirSync',
  'openSync',
  'readdirSync',
  'readFileSync',
  'readSync',
  'renameSync',
  'rmSync',
  'statSync',
  'writeFileSync',
  'writeSync',
];

/** @typedef {{ name: string, path: string, args: unknown[], original: (...args: unknown[]) => unknown }} Operation */

/**
 * Calls `intercept` instead of each file operation, with the path that it is about, also where it has a descriptor.
 *
 * @param {(operation: Operation) => unknown} intercept
 */
export function interceptFiles(intercept) {
  const paths = new Map();
  for (const name of OPERATIONS) {
    const original = fs[name].bind(fs);
    fs[name] = (...args) => {
      const path = String(typeof args[0] === 'number' ? (paths.get(args[0]) ?? '') : args[0]);
      const result = intercept({ name, path, args, original });
      if (name === 'openSync') paths.set(result, path);
      return result;
    };
  }
  syncBuiltinESMExports();
}

function writeHalf({ args: [descriptor, bytes, offset = 0, length = bytes.length - offset], original }) {
  original(descriptor, bytes, offset, Math.floor(length / 2));
}

const die = () => process.kill(process.pid, 'SIGKILL');

/**
 * Kills the process at the `count`th operation that `isCounted` names: before it, after it, or, of a write, halfway.
 *
 * @param {{ count: number, place: 'before' | 'half' | 'after' }} fault
 * @param {(operation: Operation) => boolean} isCounted
 */
export function killAt({ count, place }, isCounted) {
  let calls = 0;
  interceptFiles((operation) => {
    const { name, args, original } = operation;
    if (!isCounted(operation) || ++calls !== count) return original(...args);
    if (place === 'half' && name === 'writeSync') writeHalf(operation);
    const result = place === 'after' ? original(...args) : undefined;
    die();
    return result;
  });
}

/** What the system says, by error code. */
const FAILURES = {
  EIO: { text: 'i/o error, read', syscall: 'read', errno: -5 },
  ENOSPC: { text: 'no space left on device, write', syscall: 'write', errno: -28 },
};

/**
 * Lets operations fail; of a write, half is done first.
 *
 * @param {'EIO' | 'ENOSPC'} code
 * @param {(operation: Operation) => boolean} fails
 */
export function failAt(code, fails) {
  interceptFiles((operation) => {
    const { name, args, original } = operation;
    if (!fails(operation)) return original(...args);
    if (name === 'writeSync') writeHalf(operation);
    const { text, ...facts } = FAILURES[code];
    throw Object.assign(new Error(`${code}: ${text}`), { code, ...facts });
  });
}

/** From now on every look at the time of day gives an earlier one. */
export function setClockBack() {
  const Real = Date;
  let time = Real.now();
  globalThis.Date = class extends Real {
    constructor(...args) {
      super(...(args.length > 0 ? args : [Date.now()]));
    }
    static now() {
      return (time -= 3_600_000);
    }
  };
}
