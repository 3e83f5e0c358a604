// `node examples/xlstm-language/run.mjs`: xLSTM[7:1] and [1:0] against Transformers of as many parameters on as many tokens of
// the State of the Union addresses. Writes results.json, the tables in README.md and the plots here.
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { openExperiment } from '../support/experiment.mjs';
import { loss, lossPlot, lengthPlot, tables } from './report.mjs';

const ARMS = ['xlstm-7-1', 'xlstm-1-0', 'transformer-8', 'transformer-4'];
/** Searched with the first seed; the best of each arm is trained with the second one too. */
const RATES = [0.002, 0.005, 0.012];
const SEEDS = [1, 2];
/** Windows that the finished models are evaluated on, in tokens; the first is what they were trained on. */
const LENGTHS = [256, 512, 1024, 2048];
const EVALUATED_TOKENS = 131_072;
/** What training costs: measured by this many short runs of each arm in turn. */
const ROUNDS = 3;

const experiment = openExperiment(import.meta.url);
const train = (arm, name, settings) => experiment.train({ config: `${arm}.yaml`, name, settings, threads: 1 });

/** What training takes on one thread: tokens per second, from the last steps of a short run, and memory. */
async function cost(arm, round) {
  const name = `cost-${arm}-${round}`;
  const { peakMemoryMiB } = await train(arm, name, {
    'train.steps': 24,
    'train.logEvery': 12,
    'train.evalTokens': 256,
  });
  const { tokensPerSecond } = experiment.metrics(name).findLast(({ kind }) => kind === 'train');
  return { tokensPerSecond: Math.round(tokensPerSecond), peakMemoryMiB: Math.round(peakMemoryMiB) };
}

/** Number of values in the run's last checkpoint. */
function parameters(name, step) {
  const folder = `step-${String(step).padStart(8, '0')}`;
  const file = readFileSync(path.join(experiment.folder, 'runs', name, 'checkpoints', folder, 'model.safetensors'));
  const { __metadata__: _, ...tensors } = JSON.parse(file.toString('utf8', 8, 8 + Number(file.readBigUInt64LE(0))));
  return Object.values(tensors).reduce((sum, { shape }) => sum + shape.reduce((size, axis) => size * axis, 1), 0);
}

/** Trains one run and gives its evaluations by step. */
async function runOf(arm, rate, seed) {
  const name = `${arm}-${rate}-${seed}`;
  const result = await train(arm, name, { 'optimizer.lr': rate, 'train.seed': seed });
  const evaluations = experiment.metrics(name).filter(({ kind }) => kind === 'eval');
  console.log(`${name}: ${result.valLoss.toFixed(4)}`);
  return {
    name,
    arm,
    rate,
    seed,
    parameters: parameters(name, result.steps),
    tokens: result.tokens,
    backend: result.backend,
    losses: Object.fromEntries(evaluations.map(({ step, valLoss }) => [step, valLoss])),
  };
}

/** Loss of a finished run by the length of the evaluated windows. */
async function byLength(name) {
  const losses = {};
  for (const length of LENGTHS) {
    const flags = ['--context-length', String(length), '--max-tokens', String(EVALUATED_TOKENS), '--json'];
    losses[length] = JSON.parse(await experiment.llmx(['eval', name, ...flags])).loss;
  }
  return losses;
}

await experiment.prepareAddresses();
const costs = Object.fromEntries(ARMS.map((arm) => [arm, []]));
for (let round = 0; round < ROUNDS; round++) for (const arm of ARMS) costs[arm].push(await cost(arm, round));
console.log(costs);

// One at a time: two runs would share what the processor has besides its cores, and the slower arms would pay for it.
const runs = [];
for (const arm of ARMS) {
  const searched = [];
  for (const rate of RATES) searched.push(await runOf(arm, rate, SEEDS[0]));
  const [{ rate: best }] = searched.toSorted((a, b) => loss(a) - loss(b));
  const again = [];
  for (const seed of SEEDS.slice(1)) again.push(await runOf(arm, best, seed));
  runs.push(...searched, ...again);
  for (const run of runs.filter((one) => one.arm === arm && one.rate === best)) run.byLength = await byLength(run.name);
}
const results = { costs, runs };
experiment.report({
  results,
  table: tables(results),
  plots: { 'plot.svg': lossPlot(results), 'lengths.svg': lengthPlot(results) },
});
