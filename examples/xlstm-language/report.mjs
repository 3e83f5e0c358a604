// Tables and plots of results.json.
import { markdownTable, mean } from '../support/experiment.mjs';
import { linePlot } from '../support/plot.mjs';

const NAMES = {
  'xlstm-7-1': 'xLSTM[7:1]',
  'xlstm-1-0': 'xLSTM[1:0]',
  'transformer-8': 'Transformer, 8 blocks',
  'transformer-4': 'Transformer, 4 blocks',
};

const steps = ({ losses }) => Math.max(...Object.keys(losses).map(Number));
/** Held-out loss at the end of a run, nats per byte. */
export const loss = (run) => run.losses[steps(run)];

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const grouped = (value) => Math.round(value).toLocaleString('en-US');
const seeds = (values) => `${mean(values).toFixed(4)} (${values.map((value) => value.toFixed(4)).join(', ')})`;

/** Per arm: its runs, and those at the learning rate that was best. */
function arms({ runs }) {
  return Object.entries(NAMES).map(([arm, name]) => {
    const all = runs.filter((run) => run.arm === arm);
    return { arm, name, all, best: all.filter(({ byLength }) => byLength !== undefined) };
  });
}

function lossTable({ costs, runs }) {
  const head = ['model', 'parameters', 'best rate', 'loss (each seed)', 'tokens/s', 'minutes a run', 'peak memory'];
  const rows = arms({ runs }).map(({ arm, name, best }) => {
    const [first] = best;
    const speed = median(costs[arm].map(({ tokensPerSecond }) => tokensPerSecond));
    return [
      name,
      grouped(first.parameters),
      first.rate,
      seeds(best.map(loss)),
      grouped(speed),
      (first.tokens / speed / 60).toFixed(1),
      `${median(costs[arm].map(({ peakMemoryMiB }) => peakMemoryMiB))} MiB`,
    ];
  });
  return markdownTable(head, rows);
}

function searchTable(results) {
  const rates = [...new Set(results.runs.map(({ rate }) => rate))];
  const rows = arms(results).map(({ name, all }) => [
    name,
    ...rates.map((rate) => loss(all.find((run) => run.rate === rate)).toFixed(4)),
  ]);
  return markdownTable(['first seed, loss at learning rate', ...rates], rows);
}

const lengthsOf = ([first]) => Object.keys(first.byLength).map(Number);

function lengthTable(results) {
  const lengths = lengthsOf(arms(results)[0].best);
  const rows = arms(results).map(({ name, best }) => [
    name,
    ...lengths.map((length) => mean(best.map(({ byLength }) => byLength[length])).toFixed(4)),
  ]);
  return markdownTable(['loss in windows of', ...lengths.map((length) => `${length} bytes`)], rows);
}

export const tables = (results) => [lossTable(results), searchTable(results), lengthTable(results)].join('\n\n');

/** Held-out loss over steps at each arm's best learning rate: lines join means, pale dots are single runs. */
export function lossPlot(results) {
  const at = arms(results)[0].best[0].losses;
  const evaluated = Object.keys(at).map(Number);
  return linePlot({
    x: { label: 'steps', ticks: evaluated },
    y: { label: 'held-out loss, nats per byte' },
    series: arms(results).map(({ name, best }) => ({
      name,
      points: evaluated.map((x) => ({ x, y: mean(best.map(({ losses }) => losses[x])) })),
      singles: evaluated.flatMap((x) => best.map(({ losses }) => ({ x, y: losses[x] }))),
    })),
  });
}

/** Held-out loss over the length of the evaluated windows. */
export function lengthPlot(results) {
  const lengths = lengthsOf(arms(results)[0].best);
  return linePlot({
    x: { label: 'bytes per window (trained on the first)', log: true, ticks: lengths },
    y: { label: 'held-out loss, nats per byte' },
    series: arms(results).map(({ name, best }) => ({
      name,
      points: lengths.map((x) => ({ x, y: mean(best.map(({ byLength }) => byLength[x])) })),
    })),
  });
}
