// Table and plot of results.json.
import { markdownTable, mean } from '../support/experiment.mjs';
import { linePlot } from '../support/plot.mjs';

/** Per arm the runs at its learning rate, which is best on the trained lengths; the lower loss where two are alike. */
function chosen(runs) {
  const arms = [...new Set(runs.map(({ arm }) => arm))];
  return arms.map((arm) => {
    const own = runs.filter((run) => run.arm === arm);
    const rates = [...new Set(own.map(({ lr }) => lr))].map((lr) => {
      const seeds = own.filter((run) => run.lr === lr);
      return {
        lr,
        seeds,
        score: mean(seeds.map(({ trained }) => trained)),
        loss: mean(seeds.map((run) => run.trainLoss)),
      };
    });
    const [best] = rates.toSorted((a, b) => b.score - a.score || a.loss - b.loss);
    return { arm, ...best };
  });
}

const numbers = (values) => values.map((value) => value.toFixed(3)).join(', ');

export const table = (runs) =>
  markdownTable(
    ['arm', 'learning rate', 'steps', '3 to 40 tokens, as trained', '40 to 256 tokens', 'loss below 0.01 from step'],
    chosen(runs).map(({ arm, lr, seeds }) => [
      arm,
      lr,
      seeds[0].steps,
      numbers(seeds.map(({ trained }) => trained)),
      numbers(seeds.map(({ beyond }) => beyond)),
      seeds.map(({ lossBelow001At: step }) => step ?? 'never').join(', '),
    ]),
  );

/** Scaled accuracy over length: pale dots are runs, lines their means. */
export function draw(runs) {
  const middle = (range) => mean(range.split('-').map(Number));
  return linePlot({
    x: { label: 'tokens in the sequence (trained on 3 to 40)', domain: [0, 260] },
    y: { label: 'scaled accuracy', domain: [-0.1, 1.02] },
    rules: [0, 1],
    series: chosen(runs).map(({ arm, lr, seeds }) => {
      const singles = seeds.flatMap(({ trained, byLength }) => [
        { x: middle('3-40'), y: trained },
        ...Object.entries(byLength).map(([range, y]) => ({ x: middle(range), y })),
      ]);
      const places = [...new Set(singles.map(({ x }) => x))];
      const points = places.map((x) => ({ x, y: mean(singles.filter((one) => one.x === x).map(({ y }) => y)) }));
      return { name: `${arm}, learning rate ${lr}`, points, singles };
    }),
  });
}
