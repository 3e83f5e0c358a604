import { once } from 'node:events';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { CheckpointStore } from './store.ts';

const STORE_URL = new URL('../../dist/checkpoint/store.js', import.meta.url).href;
const retention = { keepLast: 2, keepEvery: 0 };

let directory: string;
beforeAll(() => void (directory = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-kill-')), 'checkpoints')));
afterAll(() => fs.rmSync(path.dirname(directory), { recursive: true }));

/** Continues from the newest checkpoint and saves for ever, printing a dot for each; every fifth step is saved twice. */
const program = (): string => `
  import { CheckpointStore } from ${JSON.stringify(STORE_URL)};
  const store = CheckpointStore.open(${JSON.stringify(directory)}, { pid: process.pid, retention: ${JSON.stringify(retention)} });
  const vector = (value) => new Map([['w', { dtype: 'F32', shape: [50000], data: new Float32Array(50000).fill(value) }]]);
  const save = async (step) => {
    const { written } = await store.save(() => ({
      facts: { step, tokensSeen: step, best: step % 3 === 0, optimizer: { name: 'sgd' }, plugins: [], record: null, run: null },
      model: vector(step), optimizer: vector(step), plugins: vector(step),
    }));
    written.then(() => process.stdout.write('.'));
  };
  let step = store.steps().length > 0 ? store.load('latest').state.step : 0;
  for (;;) {
    step += 1;
    await save(step);
    if (step % 5 === 0) await save(step);
  }`;

/** Runs the program until it has saved `saves` checkpoints and some time longer; kills it. */
async function runAndKill(saves: number, milliseconds: number): Promise<void> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program()], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for (let dots = 0; dots < saves;) dots += String(await once(child.stdout, 'data')).length;
  await setTimeout(milliseconds);
  child.kill('SIGKILL');
  if (child.signalCode === null) await once(child, 'exit');
}

function check(newest: number): number {
  const store = CheckpointStore.open(directory, { pid: process.pid, retention });
  expect(fs.readdirSync(directory).filter((name) => !/^(latest|best|step-\d{8})$/.test(name))).toEqual([]);
  const { state, model, optimizer, plugins } = store.load('latest');
  expect(state.step).toBeGreaterThan(newest);
  for (const group of [model, optimizer, plugins])
    expect(group.get('w')?.data.every((value) => value === state.step)).toBe(true);
  for (const step of store.steps()) expect(store.load(step).state.step).toBe(step);
  const best = state.step - (state.step % 3);
  expect(best === 0 || store.load('best').state.step === best).toBe(true);
  return state.step;
}

test('killed at any moment, a run has its newest complete checkpoint', { timeout: 60_000 }, async () => {
  let [random, newest, inside] = [1, 0, 0];
  const next = (limit: number): number => (random = (Math.imul(random, 1664525) + 1013904223) >>> 0) % limit;
  for (let kills = 0; kills < 12 || inside < 3; kills++) {
    await runAndKill(1 + next(6), next(20));
    // Complete checkpoints and their pointers have other names.
    if (fs.readdirSync(directory).some((name) => name.startsWith('.'))) inside += 1;
    newest = check(newest);
  }
});
