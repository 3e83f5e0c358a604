// A run of 20,000 steps of a tiny model, evaluated and saved every 500: whether memory, tensors, open files and the time of a
// step stay as they are. In a process of its own; LLMX_BENCH_STEPS changes the length.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { nativeUnavailable } from '../packages/backend-native/dist/index.js';
import * as core from '../packages/core/dist/index.js';
import { bundledPlugins } from '../packages/cli/dist/first-party.js';
import { createHost } from '../packages/cli/dist/host.js';

export const name = 'long-run';

const STEPS = Number(process.env.LLMX_BENCH_STEPS ?? 20_000);
const TEXTS = 40;
/** Steps between two looks, and the share of the run after which everything is warm. */
const [EVERY, WARM] = [STEPS / 40, 1 / 10];

const CONFIG = {
  data: { train: 'data' },
  model: { dModel: 32, contextLength: 32, blocks: [{ block: 'attention', repeat: 2, heads: 2, dropout: 0.1 }] },
  optimizer: { name: 'adamw', lr: 0.001 },
  schedule: { name: 'cosine', warmup: '5%' },
  train: {
    steps: STEPS,
    batchSize: 2,
    gradAccumulation: 2,
    logEvery: 10,
    evalEvery: 500,
    evalTokens: 1024,
    checkpointEvery: 500,
    guard: { spikeSigma: 20 },
  },
  backend: nativeUnavailable() === undefined ? { name: 'native', threads: 1 } : 'wasm',
};

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Prepares a small dataset. */
async function prepare(host) {
  const line = (text, index) => `${text} ships and ${index} sails, ${text * index} oars.`;
  for (let text = 0; text < TEXTS; text++)
    fs.writeFileSync(
      path.join(host.cwd, `${text}.txt`),
      Array.from({ length: 100 }, (_, index) => line(text, index)).join('\n'),
    );
  const instance = new core.Registry([core.builtin]).create('tokenizer', { name: 'bytes' }, {});
  const tokenizer = { name: 'bytes', instance };
  await core.prepareDataset({ inputs: ['*.txt'], out: path.join(host.cwd, 'data'), tokenizer, valFraction: 0.2, host });
}

/** What the process holds now, after a collection of garbage. */
function look() {
  globalThis.gc();
  const { rss, heapUsed, external } = process.memoryUsage();
  return {
    resident: rss / 2 ** 20,
    heap: (heapUsed + external) / 2 ** 20,
    tensors: core.tf.memory().numTensors,
    files: fs.existsSync('/proc/self/fd') ? fs.readdirSync('/proc/self/fd').length : 0,
  };
}

/** Trains in the current folder; prints what was seen at every look, as JSON. */
async function train() {
  const host = createHost({ signal: new AbortController().signal, log: () => undefined });
  await prepare(host);
  fs.writeFileSync('c.json', JSON.stringify(CONFIG));
  const looks = [];
  let [times, last] = [[], 0];
  const onEvent = ({ kind, step }) => {
    if (kind !== 'step') return;
    times.push(performance.now() - last);
    if (step % EVERY === 0) {
      looks.push({ step, ...look(), time: median(times) });
      times = [];
    }
    last = performance.now();
  };
  await core.train(
    { file: 'c.json', name: 'long', onEvent },
    { host, coreModule: core, bundled: await bundledPlugins() },
  );
  console.log(JSON.stringify(looks));
}

const QUANTITIES = [
  ['resident', 'resident memory', 'MiB'],
  ['heap', 'JavaScript heap and buffers', 'MiB'],
  ['tensors', 'tensors', ''],
  ['files', 'open files', ''],
  ['time', 'step, median', 'ms'],
];

export async function run() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-long-'));
  try {
    const program = ['--expose-gc', fileURLToPath(import.meta.url)];
    const { status, stdout, stderr } = spawnSync(process.execPath, program, { cwd: folder, encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    const looks = JSON.parse(stdout);
    const early = looks[Math.floor(looks.length * WARM) - 1];
    const end = looks.at(-1);
    return QUANTITIES.map(([key, title, unit]) => ({
      name: `${title} at step ${end.step.toLocaleString('en-US')}`,
      value: end[key],
      unit,
      ratio: end[key] / early[key],
      yardstick: `at step ${early.step.toLocaleString('en-US')}; highest ${Math.max(...looks.map((each) => each[key])).toFixed(2)}`,
    }));
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await train();
