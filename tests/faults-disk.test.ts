// Full disks and damaged files of runs: nothing good is lost, and everything bad is named.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { verifyRun } from '@llmx/core';

import { failureOf, TinyRuns } from './support/tiny-run.ts';

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
