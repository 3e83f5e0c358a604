// Table and plot of results.json.
import { markdownTable, mean } from '../support/experiment.mjs';
import { linePlot } from '../support/plot.mjs';

/** The runs of each arm and learning rate. */
function groups(runs) {
  const keys = [...new Set(runs.map(({ arm, lr }) => `${arm}, learning rate ${lr}`))];
  return keys.map((name) => {
    const seeds = runs.filter(({ arm, lr }) => `${arm}, learning rate ${lr}` === name);
    return { name, arm: seeds[0].arm, lr: seeds[0].lr, seeds, score: mean(seeds.map(({ accuracy }) => accuracy)) };
  });
}

export const table = (runs) =>
  markdownTable(
    ['arm', 'learning rate', 'steps', 'queries answered right'],
    groups(runs)
      .toSorted((a, b) => a.arm.localeCompare(b.arm) || a.lr - b.lr)
      .map(({ arm, lr, seeds }) => [
        arm,
        lr,
        seeds[0].steps,
        seeds.map(({ accuracy }) => `${(100 * accuracy).toFixed(1)} %`).join(', '),
      ]),
  );

/** Training loss over steps, of each arm at the learning rate that answers most. */
export function draw(runs) {
  const arms = [...new Set(runs.map(({ arm }) => arm))];
  const best = arms.map(
    (arm) =>
      groups(runs)
        .filter((group) => group.arm === arm)
        .toSorted((a, b) => b.score - a.score)[0],
  );
  return linePlot({
    x: { label: 'steps' },
    y: { label: 'training loss, nats per answer' },
    series: best.map(({ name, seeds }) => {
      const singles = seeds.flatMap(({ losses }) =>
        Object.entries(losses).map(([step, y]) => ({ x: Number(step), y })),
      );
      const steps = [...new Set(singles.map(({ x }) => x))];
      return {
        name,
        points: steps.map((x) => ({ x, y: mean(singles.filter((one) => one.x === x).map(({ y }) => y)) })),
      };
    }),
  });
}
