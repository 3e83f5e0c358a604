// Faults around a run: a disk that writes wrong bits, cannot be read, or is full; a writer thread that crashes; a clock that
// is set back; signals; a step that hangs. Each in a process of its own.
import fs from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { verifyRun } from '@llmx/core';

import { type Ended, type Fault, FaultyRuns } from './support/faulty-runs.ts';

/** `npm run test:faults` */
const ALL = process.env['LLMX_TEST_FAULTS'] !== undefined;
const CONFIG = 'transformer-wasm';
const TIME_MS = 120_000;

let runs: FaultyRuns;
let expected: Record<string, unknown>;
/** How the run ended that was stopped in its first evaluation, after its first checkpoint; tests go on with copies. */
let stopped: Ended;
beforeAll(async () => {
  runs = await FaultyRuns.create();
  [expected, stopped] = await Promise.all([runs.finish(CONFIG, 'whole'), stopIn('stopped', 'SIGTERM')]);
}, TIME_MS);
afterAll(() => runs.tiny.remove());

/** Sends signals within the first evaluation. */
async function stopIn(name: string, ...signals: readonly NodeJS.Signals[]): Promise<Ended> {
  const { child, ended } = runs.start(CONFIG, name);
  let isSent = false;
  child.stdout?.on('data', (text: string | Buffer) => {
    if (isSent || !String(text).includes('e')) return;
    isSent = true;
    for (const signal of signals) child.kill(signal);
  });
  return ended;
}

const goOn = (name: string): void => fs.cpSync(runs.tiny.path('stopped'), runs.tiny.path(name), { recursive: true });

/** All that is there is good, and the run goes on to the end of the undisturbed one. */
async function endsWell(name: string): Promise<void> {
  await verifyRun({ run: name }, { host: runs.tiny.host() });
  expect(await runs.finish(CONFIG, name)).toEqual(expected);
}

const entries = (...place: string[]): string[] =>
  fs.readdirSync(runs.tiny.path(...place), { recursive: true, encoding: 'utf8' });
const steps = (name: string): string[] => entries(name, 'checkpoints').filter((entry) => /^step-\d+$/.test(entry));

test.concurrent('SIGTERM within an evaluation saves and stops', { timeout: TIME_MS }, async () => {
  expect(stopped).toMatchObject({ status: 3 });
  expect(stopped.stderr).toMatch(
    /^LLMX_INTERRUPTED Training was stopped by SIGTERM after step \d+; its state is saved/,
  );
  expect(steps('stopped').length).toBeGreaterThan(0);
  goOn('again');
  await endsWell('again');
});

const FAULTS: readonly (readonly [name: string, message: RegExp, fault: Fault])[] = [
  [
    'a wrong bit in a checkpoint',
    /^LLMX_IO_FAILED A checkpoint does not read back as it was written: .* is damaged: /,
    { phase: 'flip', count: 130 },
  ],
  [
    'a crash of the thread that writes checkpoints',
    /^ The thread that writes checkpoints stopped: it ended with code 1$/,
    { phase: 'crash', count: 0 },
  ],
  [
    'a limit of file sizes',
    /^LLMX_DISK_FULL Could not write .*safetensors": it would exceed the largest file size allowed \(EFBIG\)\.$/,
    { phase: 'limited', count: 0, fileKiB: 150 },
  ],
  [
    'unreadable data',
    /^LLMX_IO_FAILED Could not read \d+ bytes from byte \d+ on of ".*\/[a-z]+-00000.arrow": i\/o error \(EIO\)\.$/,
    { phase: 'unreadable data', count: 0 },
  ],
  [
    'a checkpoint that cannot be read',
    /^LLMX_IO_FAILED Could not read ".*\/step-\d+": i\/o error \(EIO\)\.$/,
    { phase: 'unreadable checkpoint', count: 0 },
  ],
  [
    'a new checkpoint that cannot be read back',
    /^LLMX_IO_FAILED Could not read ".*\/state.json": i\/o error \(EIO\)\.$/,
    { phase: 'unreadable copy', count: 0 },
  ],
  [
    'a full disk under a checkpoint',
    /^LLMX_DISK_FULL Could not write ".*": the disk is full \(ENOSPC\)\.$/,
    { phase: 'full disk', count: 9 },
  ],
  [
    'a full disk under the metrics',
    /^LLMX_DISK_FULL Could not write ".*metrics\.jsonl": the disk is full \(ENOSPC\)\.$/,
    { phase: 'full metrics', count: 3 },
  ],
  [
    'a limit of file sizes under the metrics',
    /^LLMX_DISK_FULL Could not write ".*": it would exceed the largest file size allowed \(EFBIG\)\.$/,
    { phase: 'limited', count: 0, fileKiB: 1 },
  ],
];

test.concurrent.for(ALL ? FAULTS : FAULTS.slice(0, 4))(
  '%s ends the run in words and leaves nothing half-written',
  { timeout: TIME_MS },
  async ([name, message, fault]) => {
    goOn(name);
    const { status, stderr } = await runs.start(CONFIG, name, fault).ended;
    expect(status, stderr).toBe(3);
    expect(stderr.trimEnd()).toMatch(message);
    expect(steps(name).length).toBeGreaterThan(0);
    expect(fs.readFileSync(runs.tiny.path(name, 'metrics.jsonl'), 'utf8')).toMatch(/\n$/);
    // A thread that is gone cannot clear away; the next one does.
    const left = fault.phase === 'crash' ? /replaced|lock/ : /partial|replaced|lock/;
    expect(entries(name).filter((entry) => left.test(entry))).toEqual([]);
    await endsWell(name);
  },
);

test.concurrent('a clock that is set back again and again changes nothing', { timeout: TIME_MS }, async () => {
  goOn('clock');
  const future = new Date('2100-01-01'); // as the files look to a clock that was set back
  for (const entry of entries('clock')) fs.utimesSync(runs.tiny.path('clock', entry), future, future);
  const end = await runs.start(CONFIG, 'clock', { phase: 'clock', count: 0 }).ended;
  expect(end).toEqual({ signal: null, status: 0, stderr: '' });
  expect(runs.outcome('clock')).toEqual(expected);
});

test.concurrent('two signals stop at once, and the lock that is left is taken over', { timeout: TIME_MS }, async () => {
  const { status, stderr } = await stopIn('hurried', 'SIGTERM', 'SIGINT');
  expect([130, 143], stderr).toContain(status); // of two that are pending, the system chooses the first
  expect(fs.existsSync(runs.tiny.path('hurried', '.lock'))).toBe(true);
  await endsWell('hurried');
});

/** Holds an evaluation and a step for longer than the watchdog has patience. */
const HANG = `
import { definePlugin } from '@llmx/core';

const hang = () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
export default definePlugin({
  name: 'hang',
  version: '1.0.0',
  llmx: '>=0.1.0',
  setup: () => ({
    hooks: {
      evaluate: ({ step }) => { if (step === 4) hang(); },
      gradients: (_grads, { step }) => { if (step === 6) hang(); },
    },
  }),
});
`;

test.concurrent('the watchdog names the step that hangs, and with what', { timeout: TIME_MS }, async () => {
  const { folder } = runs.tiny;
  fs.writeFileSync(path.join(folder, 'hang.ts'), HANG);
  const settings = { extends: `./${CONFIG}.json`, plugins: ['./hang.ts'], train: { steps: 6, watchdog: '0.5s' } };
  fs.writeFileSync(path.join(folder, 'hangs.json'), JSON.stringify(settings));
  const { status, stderr } = await runs.start('hangs', 'hangs').ended;
  expect(status, stderr).toBe(0);
  expect(stderr).toContain('Warning: step 4 hangs: evaluation has taken more than train.watchdog 0.5s.\n');
  expect(stderr).toContain(
    'Warning: step 6 hangs: forward and backward pass has taken more than train.watchdog 0.5s.\n',
  );
});
