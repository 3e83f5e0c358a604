// Table and plot of results.json.
import { markdownTable, mean } from '../support/experiment.mjs';
import { linePlot } from '../support/plot.mjs';

const distinct = (values) => [...new Set(values)];

/** Per arm its learning rates, each with the runs of all seeds. */
function byArm(runs) {
  return distinct(runs.map(({ arm }) => arm)).map((arm) => {
    const own = runs.filter((run) => run.arm === arm);
    const rates = distinct(own.map(({ lr }) => lr)).toSorted((a, b) => a - b);
    return { arm, rates: rates.map((lr) => ({ lr, seeds: own.filter((run) => run.lr === lr) })) };
  });
}

/** The learning rate of an arm that is best on the trained lengths with seed 1; the lower loss where two are alike. */
export function chosenRate(runs, arm) {
  const searched = runs.filter((run) => run.arm === arm && run.seed === 1);
  return searched.toSorted((a, b) => b.trained - a.trained || a.trainLoss - b.trainLoss)[0].lr;
}

const numbers = (values) => values.map((value) => value.toFixed(3)).join(', ');

export const table = (runs) =>
  markdownTable(
    ['arm', 'learning rate', 'steps', '3 to 40 tokens, as trained', '40 to 256 tokens', 'loss below 0.01 from step'],
    byArm(runs).flatMap(({ arm, rates }) =>
      rates.map(({ lr, seeds }) => [
        arm,
        `${lr}${lr === chosenRate(runs, arm) ? ' (chosen)' : ''}`,
        seeds[0].steps,
        numbers(seeds.map(({ trained }) => trained)),
        numbers(seeds.map(({ beyond }) => beyond)),
        seeds.map(({ lossBelow001At: step }) => step ?? 'never').join(', '),
      ]),
    ),
  );

/** Scaled accuracy over length at the chosen learning rates: lines are means over seeds, pale dots the seeds. */
export function draw(runs) {
  const middle = (range) => mean(range.split('-').map(Number));
  return linePlot({
    x: { label: 'tokens in the sequence (trained on 3 to 40)', domain: [0, 260] },
    y: { label: 'scaled accuracy', domain: [-0.1, 1.02] },
    rules: [0, 1],
    series: byArm(runs).map(({ arm, rates }) => {
      const lr = chosenRate(runs, arm);
      const { seeds } = rates.find((rate) => rate.lr === lr);
      const singles = seeds.flatMap(({ trained, byLength }) => [
        { x: middle('3-40'), y: trained },
        ...Object.entries(byLength).map(([range, y]) => ({ x: middle(range), y })),
      ]);
      const at = (x) => mean(singles.filter((one) => one.x === x).map(({ y }) => y));
      const points = distinct(singles.map(({ x }) => x)).map((x) => ({ x, y: at(x) }));
      return { name: `${arm}, learning rate ${lr}`, points, singles };
    }),
  });
}
