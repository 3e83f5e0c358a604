// `node examples/xlstm-recall/run.mjs`: multi-query associative recall with xLSTM and Transformer. Writes results.json, the table
// in README.md and plot.svg here; `--resume` keeps runs that are complete.
import { inParallel, openExperiment } from '../support/experiment.mjs';
import { draw, table } from './report.mjs';

const ARMS = [
  { arm: 'xLSTM[1:0]', config: 'xlstm.yaml', options: { 'model.ratio': [1, 0] } },
  { arm: 'xLSTM[1:1]', config: 'xlstm.yaml', options: { 'model.ratio': [1, 1] } },
  { arm: 'Transformer', config: 'transformer.yaml', options: {} },
];
const RATES = [0.003];
const SEEDS = [1];

const experiment = openExperiment(import.meta.url);

async function train({ arm, config, options, lr, seed }) {
  const name = [arm.replaceAll(/\W+/g, '-'), lr, seed].join('-');
  const settings = { 'train.seed': seed, 'optimizer.lr': lr, ...options };
  const result = await experiment.train({ config, name, settings, threads: 1 });
  const evaluated = JSON.parse(await experiment.llmx(['eval', name, '--task', 'recall', '--json']));
  const { accuracy } = evaluated.tasks[0].metrics;
  const losses = experiment
    .metrics(name)
    .filter(({ kind }) => kind === 'train')
    .map(({ step, loss }) => [step, Number(loss.toPrecision(4))]);
  console.log(`${name}: accuracy ${accuracy.toFixed(4)}`);
  return {
    arm,
    lr,
    seed,
    steps: result.steps,
    accuracy,
    losses: Object.fromEntries(losses),
    tokensPerSecond: Math.round(result.tokensPerSecond),
    backend: result.backend,
  };
}

const jobs = SEEDS.flatMap((seed) => RATES.flatMap((lr) => ARMS.map((arm) => ({ ...arm, lr, seed }))));
const start = performance.now();
const runs = await inParallel(jobs, train);
experiment.report({ results: { runs }, table: table(runs), plots: { 'plot.svg': draw(runs) } });
console.log(`${jobs.length} runs in ${((performance.now() - start) / 60_000).toFixed(1)} minutes.`);
