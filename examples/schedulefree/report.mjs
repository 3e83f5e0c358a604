// Table and plot of results.json.
import { markdownTable, mean } from '../support/experiment.mjs';
import { linePlot } from '../support/plot.mjs';

const label = (settings) =>
  Object.entries(settings)
    .map(([key, value]) => `${key.split('.').at(-1)} ${value}`)
    .join(', ');

/** Per setting of an arm: mean and single losses at a step, over seeds; best first. */
function ranked({ runs }, arm, steps, at) {
  const bySettings = new Map();
  for (const run of runs.filter((candidate) => candidate.arm === arm && candidate.steps === steps)) {
    const key = label(run.settings);
    bySettings.set(key, [...(bySettings.get(key) ?? []), run.losses[at]]);
  }
  return [...bySettings]
    .map(([settings, losses]) => ({ settings, losses, mean: mean(losses) }))
    .toSorted((a, b) => a.mean - b.mean);
}

/** The best setting of each arm at each horizon. One setting of Schedule-Free, the best at the last, serves all. */
function comparison(results) {
  const longest = Math.max(...results.horizons);
  const [{ settings }] = ranked(results, 'schedulefree', longest, longest);
  return results.horizons.map((horizon) => {
    const [cosine] = ranked(results, 'cosine', horizon, horizon);
    const free = ranked(results, 'schedulefree', longest, horizon).find((candidate) => candidate.settings === settings);
    return { horizon, cosine, free };
  });
}

const seeds = (losses) => losses.map((loss) => loss.toFixed(4)).join(', ');

export function table(results) {
  const rows = comparison(results).map(({ horizon, cosine, free }) => {
    const difference = free.mean - cosine.mean;
    return [
      horizon,
      `${cosine.mean.toFixed(4)} (${seeds(cosine.losses)})`,
      cosine.settings,
      `${free.mean.toFixed(4)} (${seeds(free.losses)})`,
      `${difference > 0 ? '+' : ''}${difference.toFixed(4)}`,
    ];
  });
  const [{ free }] = comparison(results);
  const head = [
    'steps',
    'cosine, tuned for this length',
    'its settings',
    `Schedule-Free, one run (${free.settings})`,
    'difference',
  ];
  return markdownTable(head, rows);
}

/** Every loss of both arms over steps: pale dots are single runs, lines join the best settings' means. */
export function draw(results) {
  const compared = comparison(results);
  const singles = (arm) =>
    results.runs
      .filter((run) => run.arm === arm)
      .flatMap(({ steps, losses }) =>
        results.horizons.flatMap((at) => (arm === 'cosine' && at !== steps ? [] : [{ x: at, y: losses[at] }])),
      );
  const means = (pick) => compared.map((row) => ({ x: row.horizon, y: pick(row).mean }));
  return linePlot({
    x: { label: 'steps', log: true, ticks: results.horizons },
    y: { label: 'held-out loss, nats per byte' },
    series: [
      {
        name: `AdamW, cosine tuned for each length (${compared.length} runs)`,
        points: means(({ cosine }) => cosine),
        singles: singles('cosine'),
      },
      {
        name: 'Schedule-Free AdamW (one run)',
        points: means(({ free }) => free),
        singles: singles('schedulefree'),
      },
    ],
  });
}
