import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { findCheckpoint } from './layout.ts';
import { type Checkpoint, loadCheckpoint } from './load-checkpoint.ts';
import type { HostTensors } from './safetensors.ts';
import { CheckpointStore, type StoreOptions } from './store.ts';
import type { CheckpointContent } from './write-checkpoint.ts';

let directory: string;
let stores: CheckpointStore[];
beforeEach(() => {
  directory = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-store-')), 'checkpoints');
  stores = [];
});
afterEach(async () => {
  await Promise.allSettled(stores.map((store) => store.close()));
  fs.rmSync(path.dirname(directory), { recursive: true });
});

const vector = (length: number, value: number): HostTensors =>
  new Map([['w', { dtype: 'F32', shape: [length], data: new Float32Array(length).fill(value) }]]);

function content(step: number, options: { length?: number; best?: boolean; value?: number } = {}): CheckpointContent {
  const { length = 100, best = false, value = step } = options;
  return {
    facts: {
      step,
      tokensSeen: step * 64,
      best,
      optimizer: { name: 'adamw' },
      plugins: [{ name: '@llmx/plugin-mtp', version: '1.0.0' }],
      record: { metrics: { loss: 1e-21, note: '\u001b' } },
      run: { config: { model: { dModel: 8 } } },
    },
    model: vector(length, value),
    optimizer: new Map([['state/step', { dtype: 'F64', shape: [], data: Float64Array.of(step) }]]),
    plugins: new Map(),
  };
}

function open(retention: Partial<StoreOptions['retention']> = {}): CheckpointStore {
  const store = CheckpointStore.open(directory, { pid: 4242, retention: { keepLast: 3, keepEvery: 0, ...retention } });
  stores.push(store);
  return store;
}

async function saved(...contents: CheckpointContent[]): Promise<CheckpointStore> {
  const store = open();
  for (const item of contents) await store.save(() => item);
  await store.flush();
  return store;
}

const names = (): string[] => fs.readdirSync(directory).toSorted();
const valueOf = ({ model }: Checkpoint): number | undefined => model.get('w')?.data[0];

interface Described {
  readonly code?: string;
  readonly message: string;
  readonly hint?: string;
}
/** The error of `body`, with the folder's path left out. */
async function errorOf(body: () => unknown): Promise<Described> {
  const short = (text: string) => text.replaceAll(path.dirname(directory), 'RUN');
  try {
    await body();
  } catch (error) {
    const { code, message, hint } = error as Described;
    return { message: short(message), ...(code && { code }), ...(hint && { hint: short(hint) }) };
  }
  throw new Error('Nothing was thrown.');
}

describe('a checkpoint', () => {
  test('comes back as it was saved', async () => {
    const store = open();
    const { written } = await store.save(() => content(40, { best: true }));
    expect(await written).toBe(path.join(directory, 'step-00000040'));
    const { facts, ...tensors } = content(40, { best: true });
    for (const which of ['latest', 'best', 40] as const) {
      const loaded = store.load(which);
      expect(loaded).toMatchObject({ directory: path.join(directory, 'step-00000040'), state: facts, ...tensors });
    }
    expect(names()).toEqual(['best', 'latest', 'step-00000040']);
    expect(fs.readFileSync(path.join(directory, 'latest'), 'utf8')).toBe('step-00000040\n');
    expect(fs.readdirSync(path.join(directory, 'step-00000040')).toSorted()).toEqual([
      'model.safetensors',
      'optimizer.safetensors',
      'plugins.safetensors',
      'state.json',
    ]);
  });

  test('hands its arrays to the thread instead of copying them', async () => {
    const moved = content(1);
    await saved(moved);
    expect(moved.model.get('w')?.data.length).toBe(0);
  });

  test('has the same bytes whenever it is saved', async () => {
    await saved(content(1));
    const read = () => fs.readFileSync(path.join(directory, 'step-00000001', 'state.json'), 'utf8');
    const first = read();
    fs.rmSync(directory, { recursive: true });
    await saved(content(1));
    expect(read()).toBe(first);
  });

  test('can be loaded from wherever it was copied', async () => {
    await saved(content(7));
    const copy = path.join(path.dirname(directory), 'copied');
    fs.cpSync(path.join(directory, 'step-00000007'), copy, { recursive: true });
    expect(valueOf(loadCheckpoint(copy))).toBe(7);
  });

  test('of the same step replaces the old one', async () => {
    const store = await saved(content(5, { value: 1 }), content(5, { value: 2 }));
    expect(valueOf(store.load('latest'))).toBe(2);
    expect(names()).toEqual(['latest', 'step-00000005']);
  });
});

describe('retention', () => {
  const steps = async (options: Partial<StoreOptions['retention']>, best: number): Promise<number[]> => {
    const store = open(options);
    for (let step = 1; step <= 6; step++) await store.save(() => content(step, { best: step === best }));
    await store.flush();
    return store.steps();
  };

  test('keeps the last k and the best', async () => expect(await steps({ keepLast: 2 }, 3)).toEqual([3, 5, 6]));
  test('keeps every n-th', async () => expect(await steps({ keepLast: 1, keepEvery: 2 }, 1)).toEqual([1, 2, 4, 6]));
  test('never deletes the newest', async () => expect(await steps({ keepLast: 0 }, 0)).toEqual([6]));
});

describe('opening for writing', () => {
  test('removes what an interrupted process left', async () => {
    await saved(content(1));
    fs.mkdirSync(path.join(directory, '.partial-step-00000002-99'));
    fs.writeFileSync(path.join(directory, '.partial-step-00000002-99', 'model.safetensors'), 'half');
    fs.writeFileSync(path.join(directory, '.partial-latest-1'), '');
    expect(valueOf(open().load('latest'))).toBe(1);
    expect(names()).toEqual(['latest', 'step-00000001']);
  });

  test('brings back a checkpoint whose replacement did not arrive', async () => {
    await saved(content(1));
    fs.renameSync(path.join(directory, 'step-00000001'), path.join(directory, '.replaced-step-00000001'));
    expect(valueOf(open().load('latest'))).toBe(1);
    fs.cpSync(path.join(directory, 'step-00000001'), path.join(directory, '.replaced-step-00000001'), {
      recursive: true,
    });
    open();
    expect(names()).toEqual(['latest', 'step-00000001']);
  });

  test('points to the newest checkpoint where the process died before it could', async () => {
    await saved(content(1, { best: true }), content(2, { best: true }));
    fs.writeFileSync(path.join(directory, 'latest'), 'step-00000001\n');
    fs.writeFileSync(path.join(directory, 'best'), 'step-00000001\n');
    expect(valueOf(open().load('best'))).toBe(2);
    expect(fs.readFileSync(path.join(directory, 'latest'), 'utf8')).toBe('step-00000002\n');
  });

  test('takes the newest checkpoint, whatever `latest` says', async () => {
    const store = await saved(content(1), content(2));
    fs.writeFileSync(path.join(directory, 'latest'), 'step-00000001\n');
    expect(valueOf(store.load('latest'))).toBe(2);
    fs.rmSync(path.join(directory, 'latest'));
    expect(valueOf(store.load('latest'))).toBe(2);
  });
});

describe('a missing checkpoint', () => {
  test('is an error that says what there is', async () => {
    expect(await errorOf(() => findCheckpoint(directory, 'latest'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_MISSING",
        "hint": "Train the run until it has saved one (train.checkpointEvery, and always after the last step).",
        "message": "There is no checkpoint in "RUN/checkpoints".",
      }
    `);
    const store = await saved(content(1), content(2));
    expect(await errorOf(() => store.load('best'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_MISSING",
        "hint": "There are checkpoints of steps 1, 2.",
        "message": "There is no best checkpoint in "RUN/checkpoints".",
      }
    `);
    expect(await errorOf(() => store.load(3))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_MISSING",
        "hint": "There are checkpoints of steps 1, 2.",
        "message": "There is no checkpoint of step 3 in "RUN/checkpoints".",
      }
    `);
    fs.writeFileSync(path.join(directory, 'best'), 'nonsense');
    expect(await errorOf(() => store.load('best'))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_CHECKPOINT_MISSING",
        "hint": "There are checkpoints of steps 1, 2.",
        "message": "There is no best checkpoint in "RUN/checkpoints".",
      }
    `);
  });
});

describe('saving', () => {
  test('waits for the write before it, and only then copies', async () => {
    const store = open();
    const order: string[] = [];
    const { written } = await store.save(() => content(1, { length: 1_000_000 }));
    void written.then(() => order.push('1 written'));
    await store.save(() => {
      order.push('2 copied');
      return content(2);
    });
    expect(order).toEqual(['1 written', '2 copied']);
  });

  test('that failed is told by its promise and by the next save, which saves nothing', async () => {
    const store = open();
    fs.rmSync(directory, { recursive: true });
    const { written } = await store.save(() => content(1));
    expect((await errorOf(() => written)).code).toMatchInlineSnapshot(`"LLMX_IO_FAILED"`);
    expect((await errorOf(() => store.save(() => expect.unreachable()))).code).toBe('LLMX_IO_FAILED');
    await store.flush(); // told once
    fs.mkdirSync(directory);
    await store.save(() => content(2));
    await store.flush();
    expect(valueOf(store.load('latest'))).toBe(2);
  });

  test('that failed is told by flush and by close', async () => {
    const store = open();
    fs.rmSync(directory, { recursive: true });
    await store.save(() => content(1));
    expect((await errorOf(() => store.flush())).code).toBe('LLMX_IO_FAILED');
    await store.save(() => content(1));
    expect((await errorOf(() => store.close())).code).toBe('LLMX_IO_FAILED');
  });

  test('refuses what is not a checkpoint without harm', async () => {
    const store = open();
    const wrong = { ...content(1), facts: { ...content(1).facts, run: () => 1 } };
    const { written } = await store.save(() => wrong);
    expect((await errorOf(() => written)).message).toContain('could not be cloned');
    expect(await errorOf(() => store.flush())).toMatchObject({});
    await store.save(() => content(2));
    await store.flush();
    expect(names()).toEqual(['latest', 'step-00000002']);
  });
});

const STORE_URL = new URL('../../dist/checkpoint/store.js', import.meta.url).href;
/** A program that saves checkpoints of `lengths` elements, one after another, and prints the error that ends it. */
const saver = (lengths: number[]): string => `
  import { CheckpointStore } from ${JSON.stringify(STORE_URL)};
  const store = CheckpointStore.open(${JSON.stringify(directory)}, { pid: process.pid, retention: { keepLast: 2, keepEvery: 0 } });
  const vector = (length, value) => new Map([['w', { dtype: 'F32', shape: [length], data: new Float32Array(length).fill(value) }]]);
  try {
    for (const [index, length] of ${JSON.stringify(lengths)}.entries()) {
      const step = index + 1;
      const facts = { step, tokensSeen: 0, best: false, optimizer: { name: 'sgd' }, plugins: [], record: null, run: null };
      await store.save(() => ({ facts, model: vector(length, step), optimizer: vector(1, step), plugins: new Map() }));
    }
    await store.flush();
  } catch ({ code, message, hint }) {
    console.log(JSON.stringify({ code, message, hint }));
  }`;

const hasUlimit = process.platform !== 'win32' && spawnSync('bash', ['-c', 'ulimit -f 1024']).status === 0;
// Skipped where bash cannot limit the size of files (Windows).
test.skipIf(!hasUlimit)('a file-size limit is LLMX_DISK_FULL and leaves the last good checkpoint alone', () => {
  const command = 'ulimit -f 1024; exec "$0" --input-type=module -e "$1"';
  const output = execFileSync('bash', ['-c', command, process.execPath, saver([1000, 1_000_000])], {
    encoding: 'utf8',
  });
  const { code, message, hint } = JSON.parse(output) as Required<Described>;
  expect({ code, message: message.replace(/^.*checkpoints/, '').replace(/-\d+\//, '-PID/'), hint })
    .toMatchInlineSnapshot(`
    {
      "code": "LLMX_DISK_FULL",
      "hint": "Raise the file-size limit (ulimit -f), or choose a folder elsewhere.",
      "message": "/.partial-step-00000002-PID/model.safetensors": it would exceed the largest file size allowed (EFBIG).",
    }
  `);
  expect(names()).toEqual(['latest', 'step-00000001']);
  expect(valueOf(loadCheckpoint(findCheckpoint(directory, 'latest')))).toBe(1);
});

test('a program ends although its store is open', () => {
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', saver([10])], {
    encoding: 'utf8',
    cwd: fileURLToPath(new URL('.', import.meta.url)),
  });
  expect(output).toBe('');
  expect(names()).toEqual(['latest', 'step-00000001']);
});
