// Full disks and damaged files of runs: nothing good is lost, and everything bad is named.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { openDataset, readManifest, verifyRun } from '@llmx/core';

import { verifyCheckpoint } from '../packages/core/src/checkpoint/load-checkpoint.ts';

import { failureOf, TinyRuns } from './support/tiny-run.ts';

/** `npm run test:faults` */
const ALL = process.env['LLMX_TEST_FAULTS'] !== undefined;

let runs: TinyRuns;
beforeAll(async () => {
  runs = await TinyRuns.create();
  await runs.train('whole');
}, 60_000);
afterAll(() => runs.remove());

const said = (text: string): string => text.replaceAll(runs.folder, '<folder>');

/** Mounts a file system in memory of that size; why not, if that is not possible. */
function mount(folder: string, size: string): string | undefined {
  fs.mkdirSync(folder, { recursive: true });
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder], { stdio: 'pipe' });
    return undefined;
  } catch (error) {
    return String(error).split('\n')[0];
  }
}

test('a disk without room for a checkpoint stops the run before it writes one; with room it goes on', async ({
  skip,
}) => {
  const folder = runs.path('full', 'checkpoints');
  await failureOf(runs.train('full', [], { signal: AbortSignal.abort('SIGTERM') })); // makes the directory
  const reason = mount(folder, '1m');
  skip(reason !== undefined, `no mounts here: ${reason}`);
  try {
    const error = said(await failureOf(runs.train('full')));
    expect(error).toMatchInlineSnapshot(
      `"LLMX_DISK_FULL: A checkpoint needs 2 MiB, the disk of "<folder>/runs/full/checkpoints" has 1 left."`,
    );
    expect(fs.readdirSync(folder)).toEqual([]);
  } finally {
    execFileSync('umount', [folder]);
  }
  await runs.train('full');
  expect(runs.tensors('full', 12)).toEqual(runs.tensors('whole', 12));
  expect(runs.metrics('full')).toEqual(runs.metrics('whole'));
});

test('a disk that fills up while a run goes on leaves what is good', async ({ skip }) => {
  fs.mkdirSync(runs.path('filled'), { recursive: true });
  const reason = mount(runs.path('filled'), '6m');
  skip(reason !== undefined, `no mounts here: ${reason}`);
  const ballast = runs.path('filled', 'ballast');
  const memory = () => {
    fill(ballast); // when the first step is logged
    return { residentMiB: 1, peakMiB: 2 };
  };
  try {
    await runs.train('filled', ['train.tokens=300']); // 5 steps
    expect(said(await failureOf(runs.train('filled', [], { memory })))).toMatch(/^LLMX_DISK_FULL: /);
    const { checkpoints } = await verify('filled');
    expect(checkpoints).toEqual([5]);
    fs.rmSync(ballast);
    await runs.train('filled');
    expect(runs.tensors('filled', 12)).toEqual(runs.tensors('whole', 12));
    // It was over at step 5 once, which is logged and evaluated then.
    expect(runs.metrics('filled').filter(({ step }) => step !== 5)).toEqual(runs.metrics('whole'));
  } finally {
    execFileSync('umount', [runs.path('filled')]);
  }
});

/** Writes to a file until the disk is full. */
function fill(file: string): void {
  const fd = fs.openSync(file, 'w');
  try {
    for (;;) fs.writeSync(fd, Buffer.alloc(1024));
  } catch (error) {
    expect(error).toMatchObject({ code: 'ENOSPC' });
  } finally {
    fs.closeSync(fd);
  }
}

const verify = (run: string, data = false) => verifyRun({ run, data }, { host: runs.host() });

test('a whole run is verified', async () => {
  const { checkpoints, records, bytes, dataset } = await verify('whole', true);
  expect({ checkpoints, records, dataset }).toEqual({
    checkpoints: [5, 10, 12],
    records: 10,
    dataset: path.join(runs.folder, 'data'),
  });
  expect(bytes).toBeGreaterThan(10_000);
});

/** Changes the bit of a file. */
function flip(file: string, bit: number): void {
  const bytes = fs.readFileSync(file);
  bytes[bit >> 3]! ^= 1 << (bit & 7);
  fs.writeFileSync(file, bytes);
}

const FILES = ['model.safetensors', 'optimizer.safetensors', 'plugins.safetensors', 'state.json'];

/** Whether damage of a checkpoint's file is found. */
function isFound(file: string): boolean {
  try {
    verifyCheckpoint(path.dirname(file));
    return false;
  } catch (error) {
    return (error as { code?: string }).code === 'LLMX_CHECKPOINT_DAMAGED';
  }
}

/** Numbers below `end` at that distance. */
const upTo = (end: number, distance: number): number[] =>
  Array.from({ length: Math.ceil(end / distance) }, (_, index) => index * distance);

test.for(FILES)('every flipped bit of %s is found, and every lost end', { timeout: 600_000 }, (name) => {
  const file = path.join(runs.checkpoint('whole', 12), name);
  const bytes = fs.readFileSync(file);
  // All of state.json is its header; bodies are sampled.
  const header = name === 'state.json' ? bytes.length : 8 + Number(bytes.readBigUInt64LE());
  const bits = [...upTo(8 * header, ALL ? 1 : 499), ...upTo(8 * bytes.length, ALL ? 97 : 9973)];
  const fd = fs.openSync(file, 'r+');
  const write = (byte: number, place: number): number => fs.writeSync(fd, Uint8Array.of(byte), 0, 1, place);
  const missed = bits.filter((bit) => {
    const [place, byte] = [bit >> 3, bytes[bit >> 3]!];
    write(byte ^ (1 << (bit & 7)), place);
    const found = isFound(file);
    write(byte, place);
    return !found;
  });
  fs.closeSync(fd);
  expect(missed).toEqual([]);
  const lengths = upTo(bytes.length, ALL ? 97 : 499);
  const unnoticed = lengths.filter((length) => {
    fs.writeFileSync(file, bytes.subarray(0, length));
    return !isFound(file);
  });
  expect(unnoticed).toEqual([]);
  fs.writeFileSync(file, bytes);
  expect(isFound(file)).toBe(false);
});

test('a run.json, dataset.json or shard without its end is refused', () => {
  const data = path.join(runs.folder, 'data');
  for (const [file, read] of [
    [runs.path('whole', 'run.json'), () => readManifest(runs.path('whole'))],
    [path.join(data, 'dataset.json'), () => openDataset(data)],
    [path.join(data, 'train-00000.arrow'), () => openDataset(data)],
  ] as const) {
    const intact = fs.readFileSync(file);
    for (const length of upTo(intact.length - 2, ALL ? 7 : 499)) {
      fs.writeFileSync(file, intact.subarray(0, length));
      expect(read, `${file} of ${length} bytes`).toThrow(/is damaged|cannot be read as the description of a run/);
    }
    fs.writeFileSync(file, intact);
    expect(read).not.toThrow();
  }
});

test('all damaged files of a run are named', async () => {
  fs.cpSync(runs.path('whole'), runs.path('damaged'), { recursive: true });
  flip(path.join(runs.checkpoint('damaged', 5), 'optimizer.safetensors'), 12_345);
  fs.truncateSync(path.join(runs.checkpoint('damaged', 10), 'model.safetensors'), 100);
  fs.rmSync(path.join(runs.checkpoint('damaged', 12), 'plugins.safetensors'));
  fs.writeFileSync(runs.path('damaged', 'checkpoints', 'best'), 'step-00000007\n');
  fs.appendFileSync(runs.path('damaged', 'metrics.jsonl'), 'spoilt\n');
  expect(said(await failureOf(verify('damaged')))).toMatchInlineSnapshot(`
    "LLMX_RUN_DAMAGED: Line 11 of "<folder>/runs/damaged/metrics.jsonl" is not a metrics record.
    "<folder>/runs/damaged/checkpoints/step-00000005/optimizer.safetensors" is damaged: its content does not match its sha256.
    "<folder>/runs/damaged/checkpoints/step-00000010/model.safetensors" is damaged: it has 100 bytes instead of 14024.
    "<folder>/runs/damaged/checkpoints/step-00000012/plugins.safetensors" is damaged: it is missing.
    "<folder>/runs/damaged/checkpoints/best" names "step-00000007", which is no checkpoint there."
  `);
});

test('a damaged shard is found where the dataset is read, too', async () => {
  const shard = path.join(runs.folder, 'data', 'train-00000.arrow');
  flip(shard, 8 * 2000);
  await verify('whole');
  expect(said(await failureOf(verify('whole', true)))).toMatch(
    /^LLMX_DATASET_DAMAGED: "<folder>\/data\/train-00000.arrow"/,
  );
  flip(shard, 8 * 2000);
});
