import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { encodeState } from './encode-state.ts';
import { findCheckpoint, type Which } from './layout.ts';
import { type Checkpoint, loadCheckpoint } from './load-checkpoint.ts';
import type { HostTensors } from './safetensors.ts';
import { readState } from './state-file.ts';
import { writeCheckpoint } from './write-checkpoint.ts';

let directory: string;
beforeEach(() => {
  directory = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-load-')), 'checkpoints');
  fs.mkdirSync(directory);
});
afterEach(() => fs.rmSync(path.dirname(directory), { recursive: true }));

const vector = (value: number): HostTensors =>
  new Map([['w', { dtype: 'F32', shape: [100], data: new Float32Array(100).fill(value) }]]);

/** Writes the checkpoints of steps 1 to `count`. */
function save(count: number): void {
  for (let step = 1; step <= count; step++) {
    const facts = {
      step,
      tokensSeen: step * 64,
      best: false,
      optimizer: { name: 'adamw' },
      plugins: [{ name: '@llmx/plugin-mtp', version: '1.0.0' }],
      record: { metrics: { loss: 1e-21, note: '\u001b' } },
      run: { config: { model: { dModel: 8 } } },
    };
    const optimizer: HostTensors = new Map([['state/step', { dtype: 'F64', shape: [], data: Float64Array.of(step) }]]);
    const content = { facts, model: vector(step), optimizer, plugins: new Map() };
    writeCheckpoint({ directory, pid: 4242, content, retention: { keepLast: 3, keepEvery: 0 } });
  }
}

const load = (which: Which): Checkpoint => loadCheckpoint(findCheckpoint(directory, which));
const valueOf = ({ model }: Checkpoint): number | undefined => model.get('w')?.data[0];

interface Described {
  readonly code?: string;
  readonly message: string;
  readonly hint?: string;
}
/** The error of `body`, with the folder's path left out. */
function errorOf(body: () => unknown): Described {
  const short = (text: string) => text.replaceAll(path.dirname(directory), 'RUN');
  try {
    body();
  } catch (error) {
    const { code, message, hint } = error as Described;
    return { message: short(message), ...(code && { code }), ...(hint && { hint: short(hint) }) };
  }
  throw new Error('Nothing was thrown.');
}

/** Reproducible numbers below `limit`. */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % limit;
}

function flipBit(file: string, bit: number): void {
  const bytes = fs.readFileSync(file);
  bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
  fs.writeFileSync(file, bytes);
}

describe('damage', () => {
  test('of any byte of state.json is detected', () => {
    save(1);
    const file = path.join(directory, 'step-00000001', 'state.json');
    const bytes = fs.readFileSync(file);
    const undetected: number[] = [];
    for (const [index, byte] of [...bytes].entries()) {
      bytes.writeUInt8(byte ^ (1 << (index % 8)), index);
      fs.writeFileSync(file, bytes);
      bytes.writeUInt8(byte, index);
      try {
        readState(file);
        undetected.push(index);
      } catch (error) {
        if ((error as Described).code !== 'LLMX_CHECKPOINT_DAMAGED') throw error;
      }
    }
    expect(undetected).toEqual([]);
    fs.writeFileSync(file, bytes);
    expect(readState(file).step).toBe(1);
  });

  test('of random bits of the tensors is detected', () => {
    save(1);
    const checkpoint = path.join(directory, 'step-00000001');
    const random = numbers(7);
    for (const name of ['model.safetensors', 'optimizer.safetensors', 'plugins.safetensors']) {
      const file = path.join(checkpoint, name);
      for (let round = 0; round < 50; round++) {
        const bit = random(8 * fs.statSync(file).size);
        flipBit(file, bit);
        expect(() => loadCheckpoint(checkpoint), `bit ${bit}`).toThrow(`${name}" is damaged`);
        flipBit(file, bit);
      }
    }
    expect(valueOf(loadCheckpoint(checkpoint))).toBe(1);
  });

  test('names the file and the newest good checkpoint', () => {
    save(3);
    flipBit(path.join(directory, 'step-00000003', 'model.safetensors'), 3000);
    expect(errorOf(() => load('latest'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_DAMAGED",
        "hint": "The newest good checkpoint is "RUN/checkpoints/step-00000002": name that one, or delete "RUN/checkpoints/step-00000003" and continue with --resume.",
        "message": ""RUN/checkpoints/step-00000003/model.safetensors" is damaged: its content does not match its sha256.",
      }
    `);
    fs.truncateSync(path.join(directory, 'step-00000002', 'optimizer.safetensors'), 10);
    expect(errorOf(() => load('latest'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_DAMAGED",
        "hint": "The newest good checkpoint is "RUN/checkpoints/step-00000001": name that one, or delete "RUN/checkpoints/step-00000002", "RUN/checkpoints/step-00000003" and continue with --resume.",
        "message": ""RUN/checkpoints/step-00000003/model.safetensors" is damaged: its content does not match its sha256.",
      }
    `);
    expect(errorOf(() => load(2))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_DAMAGED",
        "hint": "The newest good checkpoint is "RUN/checkpoints/step-00000001": name that one, or delete "RUN/checkpoints/step-00000002", "RUN/checkpoints/step-00000003" and continue with --resume.",
        "message": ""RUN/checkpoints/step-00000002/optimizer.safetensors" is damaged: it has 10 bytes instead of 80.",
      }
    `);
    fs.rmSync(path.join(directory, 'step-00000001', 'plugins.safetensors'));
    expect(errorOf(() => load(1))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_DAMAGED",
        "hint": "No checkpoint beside it is good: delete "RUN/checkpoints/step-00000001", "RUN/checkpoints/step-00000002", "RUN/checkpoints/step-00000003" and start over with --resume.",
        "message": ""RUN/checkpoints/step-00000001/plugins.safetensors" is damaged: it is missing.",
      }
    `);
  });

  test('of an older checkpoint asks for nothing to be deleted, nor does that of a copy', () => {
    save(2);
    const old = path.join(directory, 'step-00000001');
    fs.rmSync(path.join(old, 'model.safetensors'));
    expect(errorOf(() => load(1)).hint).toMatchInlineSnapshot(
      `"The newest good checkpoint is "RUN/checkpoints/step-00000002": name that one."`,
    );
    const copy = path.join(path.dirname(directory), 'step-00000001');
    fs.cpSync(old, copy, { recursive: true });
    expect(errorOf(() => loadCheckpoint(copy)).hint).toMatchInlineSnapshot(
      `"Copy the checkpoint again from where it came from."`,
    );
  });

  test('includes files of another checkpoint', () => {
    save(2);
    const from = path.join(directory, 'step-00000001');
    const to = path.join(directory, 'step-00000002');
    fs.copyFileSync(path.join(from, 'model.safetensors'), path.join(to, 'model.safetensors'));
    expect(errorOf(() => load(2))).toMatchObject({ code: 'LLMX_CHECKPOINT_DAMAGED' });
    fs.cpSync(from, to, { recursive: true });
    expect(errorOf(() => load(2)).message).toMatchInlineSnapshot(
      `""RUN/checkpoints/step-00000002/state.json" is damaged: it is of step 1."`,
    );
  });

  test('is told from the format of another version', () => {
    save(1);
    const file = path.join(directory, 'step-00000001', 'state.json');
    fs.writeFileSync(file, encodeState({ ...readState(file), version: 2 }));
    expect(errorOf(() => readState(file)).message).toMatchInlineSnapshot(
      `""RUN/checkpoints/step-00000001/state.json" is damaged: it is not of the form that this version of llmx reads (version: Invalid input: expected 1)."`,
    );
  });
});
