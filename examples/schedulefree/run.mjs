// `node examples/schedulefree/run.mjs`: one Schedule-Free run against cosine runs tuned for each of three horizons, on the
// State of the Union addresses. Writes results.json, the table in README.md and plot.svg here.
import { inParallel, openExperiment } from '../support/experiment.mjs';
import { draw, table } from './report.mjs';

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

const experiment = openExperiment(import.meta.url);

/** Trains one run and gives its evaluations by step. One thread each, since a run per core goes on at a time. */
async function train({ arm, steps, seed, settings }) {
  const name = [arm, steps, ...Object.values(settings), seed].join('-').replaceAll('%', 'p');
  const given = { 'train.steps': steps, 'train.seed': seed, ...settings };
  const result = await experiment.train({ config: `${arm}.yaml`, name, settings: given, threads: 1 });
  const evaluations = experiment.metrics(name).filter(({ kind }) => kind === 'eval');
  console.log(`${name}: ${result.valLoss.toFixed(4)}`);
  return {
    arm,
    steps,
    seed,
    settings,
    losses: Object.fromEntries(evaluations.map(({ step, valLoss }) => [step, valLoss])),
    tokensPerSecond: Math.round(result.tokensPerSecond),
    backend: result.backend,
  };
}

await experiment.prepareAddresses();
const jobs = Object.entries(ARMS).flatMap(([arm, { lengths, grid }]) =>
  lengths.flatMap((steps) => grid.flatMap((settings) => SEEDS.map((seed) => ({ arm, steps, seed, settings })))),
);
const start = performance.now();
const results = { horizons: HORIZONS, runs: await inParallel(jobs, train) };
experiment.report({ results, table: table(results), plots: { 'plot.svg': draw(results) } });
console.log(`${jobs.length} runs in ${((performance.now() - start) / 60_000).toFixed(1)} minutes.`);
