// The whole loop of `llmx train` beside a plain PyTorch script, train/torch_gpt.py, in the same run: A is a small GPT, B is
// GPT-2 124M. Sides take turns, because machines that are shared change their speed; a value is the median over the rounds.
// PyTorch runs in four ways; the best of them counts.
//
// LLMX_TORCH_PYTHON: a Python that has torch (.venv/bin/python). LLMX_BENCH_BACKEND: the backend (auto).
// LLMX_BENCH_ONLY: A or B. LLMX_BENCH_STEPS: steps of a run, more than 4, for a quick look. LLMX_BENCH_SEED: of both sides (1).
// LLMX_BENCH_PRECISION: of both sides, fp32 (default) or bf16, which PyTorch computes with autocast.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { bytesTokenizer } from '../packages/core/dist/data/bytes-tokenizer.js';
import { prepare } from './train/data.mjs';
import { bytePairs } from './train/plugin.mjs';
import { findTorch, median, resolved, trainLlmx, trainTorch, VARIANTS } from './train/sides.mjs';

export const name = 'train';

const ROUNDS = 3;
/** Steps of the runs that only find the fastest variant. */
const TRIAL_STEPS = 12;
/** How many variants of PyTorch, the fastest in trials, take part in the rounds: two of them may be close. */
const CONTENDERS = 2;
const CONFIGURATIONS = [
  { name: 'A', tokenizer: { name: 'bytes', instance: bytesTokenizer.build({}, {}) } },
  { name: 'B', tokenizer: { name: 'byte-pairs', instance: bytePairs } },
];

const {
  LLMX_BENCH_BACKEND: backend = 'auto',
  LLMX_BENCH_ONLY: only,
  LLMX_BENCH_STEPS: fewer,
  LLMX_BENCH_SEED: seed = '1',
  LLMX_BENCH_PRECISION: precision = 'fp32',
} = process.env;

/** The median over runs of each of their numbers. */
function summary(runs) {
  const keys = Object.keys(runs[0]).filter((key) => typeof runs[0][key] === 'number');
  return Object.fromEntries(keys.map((key) => [key, median(runs.map((each) => each[key]))]));
}

/** What both sides need to train one configuration. */
async function setUp({ name: title, tokenizer }, folder, signal) {
  const file = fileURLToPath(new URL(`train/${title.toLowerCase()}.yaml`, import.meta.url));
  const { dataset, ids } = prepare(folder, tokenizer);
  const sets = [
    `data.train=${dataset}`,
    `backend=${backend}`,
    `train.seed=${seed}`,
    `precision=${precision}`,
    ...(fewer === undefined ? [] : [`train.steps=${fewer}`]),
  ];
  const config = await resolved({ file, sets, folder, signal });
  const { vocabSize: vocabulary } = tokenizer.instance;
  const { steps } = config.train;
  return {
    steps,
    llmx: () => trainLlmx({ file, sets, folder, signal }),
    torch: (python, variant, count = steps) =>
      trainTorch({ python, variant, config, vocabulary, ids, steps: count, signal }),
  };
}

/** Says what a run reached, for whoever waits, and gives it. */
function reported(who, result) {
  console.error(`${who}: ${Math.round(result.tokensPerSecond)} tokens/s, ${Math.round(result.peakMiB)} MiB`);
  return result;
}

/** A short run of every variant; the fastest first. */
async function tryVariants(title, { torch, steps }, python) {
  const tried = [];
  for (const variant of VARIANTS) {
    const result = await torch(python, variant, Math.min(steps, TRIAL_STEPS));
    tried.push(reported(`${title}, trial, PyTorch ${variant.name}`, { variant, ...result }));
  }
  return tried.toSorted((a, b) => b.tokensPerSecond - a.tokensPerSecond);
}

/** Rounds in which llmx and the contenders take turns: the runs of llmx, and those of each contender. */
async function takeTurns(title, sides, contenders, python) {
  const ours = [];
  const theirs = contenders.map(({ variant }) => ({ variant, runs: [] }));
  for (let round = 1; round <= ROUNDS; round++) {
    ours.push(reported(`${title}, round ${round}, llmx`, await sides.llmx()));
    for (const { variant, runs } of theirs)
      runs.push(reported(`${title}, round ${round}, PyTorch ${variant.name}`, await sides.torch(python, variant)));
  }
  return { ours, theirs };
}

/** Rows of one configuration. PyTorch's speed is that of its fastest variant, its memory that of the one that takes least. */
async function compare(title, sides, torch) {
  const tried = torch === undefined ? [] : await tryVariants(title, sides, torch.python);
  const { ours, theirs } = await takeTurns(title, sides, tried.slice(0, CONTENDERS), torch?.python);
  const [fastest] = theirs
    .map(({ variant, runs }) => ({ variant, ...summary(runs) }))
    .toSorted((a, b) => b.tokensPerSecond - a.tokensPerSecond);
  const [least] = tried.toSorted((a, b) => a.peakMiB - b.peakMiB);
  const llmx = summary(ours);
  const row = (what, key, unit, other) => ({
    name: `${title}: ${what}`,
    value: llmx[key],
    unit,
    ...(other && { ratio: llmx[key] / other[key], yardstick: `PyTorch ${torch.version}, ${other.variant.name}` }),
  });
  return [
    row(`llmx train, ${ours[0].backend}`, 'tokensPerSecond', 'tokens/s', fastest),
    row('peak memory of the steps', 'peakMiB', 'MiB', least),
    row('peak memory, last checkpoint too', 'peakWithCheckpointMiB', 'MiB'),
    row(`loss around step ${sides.steps}`, 'loss', 'nats per token', fastest),
    ...tried.map(({ variant, tokensPerSecond, peakMiB }) => ({
      name: `${title}: PyTorch, ${variant.name}`,
      value: tokensPerSecond,
      unit: 'tokens/s',
      yardstick: `a trial; peak memory ${Math.round(peakMiB)} MiB`,
    })),
  ];
}

export async function run() {
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const { signal } = interrupt;
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-bench-train-'));
  try {
    const torch = await findTorch(signal);
    const rows = [];
    for (const configuration of CONFIGURATIONS.filter((each) => only === undefined || each.name === only))
      rows.push(...(await compare(configuration.name, await setUp(configuration, folder, signal), torch)));
    return rows;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
