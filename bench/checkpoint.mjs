// What a checkpoint costs the training step: the copy to the host, whatever the disk does after that.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { builtin, chooseBackend, mapParams, Registry, tf } from '../packages/core/dist/index.js';
import { downloadTree } from '../packages/core/dist/checkpoint/state-tree.js';
import { CheckpointStore } from '../packages/core/dist/checkpoint/store.js';

export const name = 'checkpoint';

const RUNS = 5;
// 24 matrices of 512 x 1024: 12.6 M parameters, 151 MB with AdamW's two buffers.
const SHAPE = [512, 1024];
const MATRICES = 24;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Milliseconds that `body` blocks its caller. */
async function blocked(body) {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

export async function run() {
  const registry = new Registry([builtin]);
  await chooseBackend({ registry, selected: { name: 'wasm' }, precision: 'fp32', resolveFrom: [] });
  const params = Object.fromEntries(
    Array.from({ length: MATRICES }, (_, index) => [`w${index}`, tf.randomNormal(SHAPE)]),
  );
  const state = {
    m: mapParams(params, (value) => tf.zerosLike(value)),
    v: mapParams(params, (value) => tf.onesLike(value)),
  };
  const facts = { tokensSeen: 0, best: false, optimizer: { name: 'adamw' }, plugins: [], record: null, run: null };
  const content = (step) => ({
    model: downloadTree(params),
    optimizer: downloadTree({ state }),
    plugins: new Map(),
    facts: { ...facts, step },
  });
  const folder = mkdtempSync(join(tmpdir(), 'llmx-bench-'));
  const store = CheckpointStore.open(folder, { pid: process.pid, retention: { keepLast: 1, keepEvery: 0 } });
  const [copies, saves, writes] = [[], [], []];
  try {
    for (let step = 1; step <= RUNS; step++) {
      copies.push(await blocked(() => content(step)));
      const start = performance.now();
      saves.push(await blocked(() => store.save(() => content(step))));
      await store.flush();
      writes.push(performance.now() - start);
    }
  } finally {
    await store.close();
    rmSync(folder, { recursive: true });
    tf.dispose([params, state]);
  }
  const copy = median(copies);
  const row = (title, value) => ({
    name: title,
    value,
    unit: 'ms',
    ratio: value / copy,
    yardstick: 'copying 151 MB to the host',
  });
  return [
    row('step blocked by a checkpoint of 151 MB', median(saves)),
    row('checkpoint complete on disk', median(writes)),
  ];
}
