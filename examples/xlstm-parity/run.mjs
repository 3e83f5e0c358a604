// `node examples/xlstm-parity/run.mjs`: trains xLSTM and Transformer on the parity of short bit sequences and reads them on
// longer ones. Writes results.json, the table in README.md and plot.svg here; `--resume` keeps runs that are complete.
import { inParallel, openExperiment } from '../support/experiment.mjs';
import { chosenRate, draw, table } from './report.mjs';

/** An arm that solves the task at once is trained for less time. */
const ARMS = [
  { arm: 'xLSTM[0:1]', config: 'xlstm.yaml', options: { 'model.ratio': [0, 1], 'train.steps': 1500 } },
  { arm: 'xLSTM[1:1]', config: 'xlstm.yaml', options: { 'model.ratio': [1, 1] } },
  { arm: 'Transformer', config: 'transformer.yaml', options: {} },
  { arm: 'xLSTM[1:0]', config: 'xlstm.yaml', options: { 'model.ratio': [1, 0] } },
];
const RATES = [0.001, 0.003];
const TRAINED = { minLength: 3, maxLength: 40 };

const experiment = openExperiment(import.meta.url);

/** Trains one run and reads it on the lengths it was trained on and beyond. */
async function train({ arm, config, options, lr, seed }) {
  const name = [arm.replaceAll(/\W+/g, '-'), lr, seed].join('-');
  const settings = { 'train.seed': seed, 'optimizer.lr': lr, ...options };
  const result = await experiment.train({ config, name, settings, threads: 1 });
  const tasks = `parity,${JSON.stringify({ name: 'parity', bins: 1, ...TRAINED })}`;
  const evaluated = JSON.parse(await experiment.llmx(['eval', name, '--task', tasks, '--json']));
  const [beyond, trained] = evaluated.tasks.map(({ metrics }) => metrics);
  const solved = experiment.metrics(name).find(({ kind, loss }) => kind === 'train' && loss < 0.01);
  console.log(`${name}: ${trained.scaledAccuracy.toFixed(3)} as trained, ${beyond.scaledAccuracy.toFixed(3)} beyond`);
  return {
    arm,
    lr,
    seed,
    steps: result.steps,
    trainLoss: result.trainLoss,
    lossBelow001At: solved?.step ?? null,
    trained: trained.scaledAccuracy,
    beyond: beyond.scaledAccuracy,
    byLength: Object.fromEntries(
      Object.entries(beyond).flatMap(([key, value]) => (key.includes('/') ? [[key.split('/')[1], value]] : [])),
    ),
    tokensPerSecond: Math.round(result.tokensPerSecond),
    backend: result.backend,
  };
}

const start = performance.now();
// Learning rates are searched with one seed; the one that is best on the trained lengths is repeated with another.
const grid = RATES.flatMap((lr) => ARMS.map((arm) => ({ ...arm, lr, seed: 1 })));
const searched = await inParallel(grid, train);
const chosen = ARMS.map((arm) => ({ ...arm, lr: chosenRate(searched, arm.arm), seed: 2 }));
const runs = [...searched, ...(await inParallel(chosen, train))];
experiment.report({ results: { runs }, table: table(runs), plots: { 'plot.svg': draw(runs) } });
console.log(`${runs.length} runs in ${((performance.now() - start) / 60_000).toFixed(1)} minutes.`);
