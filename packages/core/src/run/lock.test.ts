import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Host } from '../plugin/host.ts';
import { acquireLock } from './lock.ts';

let folder: string;
beforeEach(() => void (folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-lock-'))));
afterEach(() => fs.rmSync(folder, { recursive: true }));

/** A process of which only those named in `alive` (as `pid started`) run. */
const host = (pid: number, alive: readonly string[] = [`${pid} s`], hostname = 'here'): Host['process'] => ({
  pid,
  version: 'v20.19.0',
  started: 's',
  hostname,
  isAlive: (other, started) => alive.includes(`${other} ${started}`),
});

const lockOf = (pid: number, token: string): string => JSON.stringify({ pid, started: 's', hostname: 'here', token });
const holder = (): unknown => JSON.parse(fs.readFileSync(path.join(folder, '.lock'), 'utf8'));

function errorOf(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    const { code, message, hint } = error as Record<'code' | 'message' | 'hint', string>;
    return { code, message: message.replaceAll(folder, 'RUN'), hint: hint.replaceAll(folder, 'RUN') };
  }
  throw new Error('Nothing was thrown.');
}

test('is a file that says who has it, and goes when it is released', () => {
  const lock = acquireLock(folder, host(1));
  expect(holder()).toMatchObject({ pid: 1, started: 's', hostname: 'here' });
  expect(fs.readdirSync(folder)).toEqual(['.lock']);
  lock.release();
  expect(fs.readdirSync(folder)).toEqual([]);
  acquireLock(folder, host(2));
});

test('a live owner is respected, also in the same process', () => {
  acquireLock(folder, host(1));
  expect(errorOf(() => acquireLock(folder, host(2, ['1 s', '2 s'])))).toMatchInlineSnapshot(`
    {
      "code": "LLMX_RUN_LOCKED",
      "hint": "Wait until that process ends, stop it, or choose another --name.",
      "message": "The run "RUN" is in use by process 1 on here.",
    }
  `);
  expect(errorOf(() => acquireLock(folder, host(1)))).toMatchObject({ code: 'LLMX_RUN_LOCKED' });
});

test('a dead owner is succeeded, also where its process id is in use again', () => {
  acquireLock(folder, host(1));
  acquireLock(folder, host(2, ['2 s']));
  expect(holder()).toMatchObject({ pid: 2 });
  acquireLock(folder, host(3, ['3 s', '2 other']));
  expect(holder()).toMatchObject({ pid: 3 });
  expect(fs.readdirSync(folder)).toEqual(['.lock']);
});

test('a process that died while it took over a lock is succeeded, too', () => {
  fs.writeFileSync(path.join(folder, '.lock'), lockOf(1, 'first'));
  fs.writeFileSync(path.join(folder, '.lock-first'), lockOf(2, 'second'));
  fs.writeFileSync(path.join(folder, '.lock-first-second'), lockOf(3, 'third'));
  acquireLock(folder, host(4));
  expect(holder()).toMatchObject({ pid: 4 });
  expect(fs.readdirSync(folder)).toEqual(['.lock']);
});

test('what killed contenders left goes when the lock is taken', () => {
  for (const left of ['.lock-new-1', '.lock-t-new-2', '.lock-t']) fs.writeFileSync(path.join(folder, left), '{');
  fs.writeFileSync(path.join(folder, 'metrics.jsonl'), '');
  acquireLock(folder, host(1));
  expect(fs.readdirSync(folder)).toEqual(['.lock', 'metrics.jsonl']);
});

test('a live process that is taking over a dead lock is respected', () => {
  fs.writeFileSync(path.join(folder, '.lock'), lockOf(1, 'first'));
  fs.writeFileSync(path.join(folder, '.lock-first'), lockOf(2, 'second'));
  expect(errorOf(() => acquireLock(folder, host(3, ['2 s', '3 s'])))).toMatchObject({
    message: 'The run "RUN" is in use by process 2 on here.',
  });
});

test('an owner on another host, and one that cannot be known, are respected', () => {
  acquireLock(folder, host(1, [], 'there'));
  expect(errorOf(() => acquireLock(folder, host(2)))).toMatchInlineSnapshot(`
    {
      "code": "LLMX_RUN_LOCKED",
      "hint": "If that process no longer runs on there, delete "RUN/.lock".",
      "message": "The run "RUN" is in use by process 1 on there.",
    }
  `);
  fs.writeFileSync(path.join(folder, '.lock'), '');
  expect(errorOf(() => acquireLock(folder, host(2)))).toMatchInlineSnapshot(`
    {
      "code": "LLMX_RUN_LOCKED",
      "hint": "If no process trains there, delete "RUN/.lock".",
      "message": "The run "RUN" is locked by an unknown process.",
    }
  `);
});

test('release leaves the lock of a successor alone', () => {
  const first = acquireLock(folder, host(1));
  const second = acquireLock(folder, host(2));
  first.release();
  expect(holder()).toMatchObject({ pid: 2 });
  second.release();
  second.release();
  expect(fs.readdirSync(folder)).toEqual([]);
});

const LOCK_URL = new URL('../../dist/run/lock.js', import.meta.url).href;
/** Contends for the lock when told to, and says whether it got it. */
const CONTENDER = `
  import { acquireLock } from ${JSON.stringify(LOCK_URL)};
  const isAlive = (pid) => { try { return process.kill(pid, 0); } catch { return false; } };
  const owner = { pid: process.pid, started: 's', hostname: 'here', isAlive };
  let lock;
  process.on('message', ({ take, folder }) => {
    try {
      if (take) lock = acquireLock(folder, owner);
      else { lock?.release(); lock = undefined; }
      process.send('done');
    } catch ({ code, message }) {
      process.send(code ?? message);
    }
  });
  process.send('ready');`;

async function start(program: string): Promise<ChildProcess> {
  const child = fork(program);
  await once(child, 'message');
  return child;
}

test('of several processes that race for a lock, free or dead, exactly one gets it', async () => {
  const program = path.join(folder, 'contender.mjs');
  fs.writeFileSync(program, CONTENDER);
  const directory = path.join(folder, 'run');
  fs.mkdirSync(directory);
  const children = await Promise.all([start(program), start(program), start(program)]);
  const all = (take: boolean): Promise<unknown[]> => {
    const answers = children.map(async (child) => ((await once(child, 'message')) as unknown[])[0]);
    children.forEach((child) => child.send({ take, folder: directory }));
    return Promise.all(answers);
  };
  try {
    for (let round = 0; round < 40; round++) {
      if (round % 2 > 0) fs.writeFileSync(path.join(directory, '.lock'), lockOf(2 ** 22 + 1, `dead${round}`));
      expect(
        (await all(true)).map(String).toSorted((a, b) => a.localeCompare(b, 'en')),
        `round ${round}`,
      ).toEqual(['done', 'LLMX_RUN_LOCKED', 'LLMX_RUN_LOCKED']);
      await all(false);
      expect(fs.readdirSync(directory)).toEqual([]);
    }
  } finally {
    children.forEach((child) => child.kill());
  }
});
