// `node examples/mtp/induction/run.mjs`: does predicting two bytes help a small model to repeat names it has read once? Trains
// every arm at each learning rate and seed, runs the task `induction` on their checkpoints, writes results.json, the table
// in README.md and plot.svg here.
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { inParallel, openExperiment } from '../../support/experiment.mjs';
import { draw, table } from './report.mjs';
import { story } from './stories.mjs';

const ARMS = ['next-token', 'two-tokens', 'extra-head', 'four-blocks'];
const RATES = [0.004, 0.008];
const SEEDS = [1, 2];
const STEPS = 800;
/** Further runs, to see whether what is missing comes later: arms with the same model for the next byte. */
const LONGER = ['two-tokens', 'four-blocks'].map((arm) => ({ arm, lr: 0.004, seed: 1, steps: 2400 }));
/** Where a run's checkpoints are looked at, of its steps. */
const POINTS = [1 / 4, 1 / 2, 3 / 4, 1];
const STORIES = 25_000;

const experiment = openExperiment(import.meta.url);

/** Writes the training stories, and prepares them with the command line as any corpus. */
async function prepareStories() {
  if (existsSync(path.join(experiment.folder, 'stories'))) return;
  const texts = Array.from({ length: STORIES }, (_, index) => story({ set: 'train', names: 'known', seed: 1 }, index));
  const file = path.join(experiment.folder, 'stories.jsonl');
  writeFileSync(file, texts.map(({ text }) => `${JSON.stringify({ text })}\n`).join(''));
  await experiment.llmx(['data', 'prepare', file, '--out', 'stories', '--tokenizer', 'bytes']);
  rmSync(file);
}

/** Accuracies on known and new names at a checkpoint. */
async function accuracies(name, step) {
  const checkpoint = `runs/${name}/checkpoints/step-${String(step).padStart(8, '0')}`;
  const task = '{ name: induction, stories: 100 }';
  const { tasks } = JSON.parse(await experiment.llmx(['eval', checkpoint, '--task', task, '--json']));
  const { metrics } = tasks[0];
  return { known: metrics['accuracy/known'], new: metrics['accuracy/new'] };
}

/** Trains one run. One thread each, since a run per core goes on at a time. */
async function train({ arm, lr, seed, steps }) {
  const name = `${arm}-${lr}-${seed}${steps === STEPS ? '' : `-${steps}`}`;
  const settings = { 'optimizer.lr': lr, 'train.seed': seed, 'train.steps': steps };
  const { valLoss, tokensPerSecond } = await experiment.train({ config: `${arm}.yaml`, name, settings, threads: 1 });
  const points = [];
  for (const step of POINTS.map((share) => share * steps)) points.push({ step, ...(await accuracies(name, step)) });
  console.log(`${name}: ${valLoss.toFixed(4)} nats per byte, new names ${points.at(-1).new.toFixed(3)}`);
  return { arm, lr, seed, steps, valLoss, tokensPerSecond: Math.round(tokensPerSecond), points };
}

await prepareStories();
const jobs = [
  ...ARMS.flatMap((arm) => RATES.flatMap((lr) => SEEDS.map((seed) => ({ arm, lr, seed, steps: STEPS })))),
  ...LONGER,
];
const start = performance.now();
const results = { runs: await inParallel(jobs, train) };
experiment.report({ results, table: table(results), plots: { 'plot.svg': draw(results) } });
console.log(`${jobs.length} runs in ${((performance.now() - start) / 60_000).toFixed(1)} minutes.`);
