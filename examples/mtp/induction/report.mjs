// Table and plot of results.json.
import { markdownTable, mean } from '../../support/experiment.mjs';
import { linePlot } from '../../support/plot.mjs';

const TITLES = {
  'next-token': 'next byte, five blocks',
  'four-blocks': 'next byte, four blocks',
  'two-tokens': 'two bytes, four blocks and a head',
  'extra-head': 'two bytes, five blocks and a head',
};

/** Runs that differ by seed alone. */
function settings({ runs }) {
  const groups = new Map();
  for (const run of runs) {
    const { arm, lr, steps } = run;
    const key = `${arm} ${lr} ${steps}`;
    groups.set(key, { arm, lr, steps, seeds: [...(groups.get(key)?.seeds ?? []), run] });
  }
  return [...groups.values()];
}

const means = (seeds, pick) => mean(seeds.map(pick));
const withSeeds = (seeds, pick, digits) => {
  const shown = (value) => value.toFixed(digits);
  return `${shown(means(seeds, pick))} (${seeds.map((run) => shown(pick(run))).join(', ')})`;
};
const percent = (names) => (run) => 100 * run.points.at(-1)[names];

export function table(results) {
  const all = settings(results);
  const order = Object.keys(TITLES);
  const rows = all
    .toSorted((a, b) => a.steps - b.steps || order.indexOf(a.arm) - order.indexOf(b.arm))
    .map(({ arm, lr, steps, seeds }) => [
      TITLES[arm],
      steps,
      lr,
      withSeeds(seeds, ({ valLoss }) => valLoss, 4),
      withSeeds(seeds, percent('known'), 1),
      withSeeds(seeds, percent('new'), 1),
    ]);
  return markdownTable(['trained on', 'steps', 'lr', 'held-out loss', 'known names, %', 'new names, %'], rows);
}

/** Each arm and length at its learning rate of lowest held-out loss. */
function best(results) {
  const loss = ({ seeds }) => means(seeds, ({ valLoss }) => valLoss);
  const chosen = new Map();
  for (const setting of settings(results)) {
    const key = `${setting.arm} ${setting.steps}`;
    if (!chosen.has(key) || loss(setting) < loss(chosen.get(key))) chosen.set(key, setting);
  }
  return [...chosen.values()];
}

/** New names over training: lines are means of the seeds, pale dots the seeds. */
export function draw(results) {
  const shortest = Math.min(...results.runs.map(({ steps }) => steps));
  const series = best(results).map(({ arm, lr, steps, seeds }) => ({
    name: `${TITLES[arm]} (lr ${lr})${steps > shortest ? `, ${steps} steps` : ''}`,
    dashed: steps > shortest,
    points: seeds[0].points.map(({ step }, index) => ({
      x: step,
      y: 100 * means(seeds, ({ points }) => points[index].new),
    })),
    singles: seeds.flatMap(({ points }) => points.map((point) => ({ x: point.step, y: 100 * point.new }))),
  }));
  return linePlot({
    x: { label: 'steps' },
    y: { label: 'letters of repeated new names found, %', domain: [0, 100] },
    series,
  });
}
