// Table and plot of results.json.
import { markdownTable, mean } from '../../support/experiment.mjs';
import { linePlot } from '../../support/plot.mjs';

const TITLES = {
  'next-token': 'next byte',
  'two-tokens': 'two bytes',
};

/** Runs of the same arm and learning rate, which differ by seed. */
function settings({ runs }) {
  const groups = new Map();
  for (const run of runs) {
    const { arm, lr } = run;
    const key = `${arm} ${lr}`;
    groups.set(key, { arm, lr, seeds: [...(groups.get(key)?.seeds ?? []), run] });
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
  const rows = settings(results).map(({ arm, lr, seeds }) => [
    TITLES[arm],
    lr,
    withSeeds(seeds, ({ valLoss }) => valLoss, 4),
    withSeeds(seeds, percent('known'), 1),
    withSeeds(seeds, percent('new'), 1),
  ]);
  return markdownTable(['trained on', 'lr', 'held-out loss', 'known names, %', 'new names, %'], rows);
}

/** The learning rate of each arm with the lowest held-out loss. */
const best = (results, arm) =>
  settings(results)
    .filter((setting) => setting.arm === arm)
    .toSorted((a, b) => means(a.seeds, ({ valLoss }) => valLoss) - means(b.seeds, ({ valLoss }) => valLoss))[0];

/** Accuracy over training at the best learning rate of each arm: lines are means of the seeds, pale dots the seeds. */
export function draw(results) {
  const series = Object.keys(TITLES).flatMap((arm) => {
    const { lr, seeds } = best(results, arm);
    return ['known', 'new'].map((names) => ({
      name: `${TITLES[arm]} (lr ${lr}), ${names} names`,
      dashed: names === 'known',
      points: seeds[0].points.map(({ step }, index) => ({
        x: step,
        y: 100 * means(seeds, ({ points }) => points[index][names]),
      })),
      singles: seeds.flatMap(({ points }) => points.map((point) => ({ x: point.step, y: 100 * point[names] }))),
    }));
  });
  return linePlot({ x: { label: 'steps' }, y: { label: 'letters of repeated names, %', domain: [0, 100] }, series });
}
