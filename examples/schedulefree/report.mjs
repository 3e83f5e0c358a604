// Table and plot of results.json.

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
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
    return `| ${horizon} | ${cosine.mean.toFixed(4)} (${seeds(cosine.losses)}) | ${cosine.settings} | ${free.mean.toFixed(4)} (${seeds(free.losses)}) | ${difference > 0 ? '+' : ''}${difference.toFixed(4)} |`;
  });
  const [{ free }] = comparison(results);
  return [
    `| steps | cosine, tuned for this length | its settings | Schedule-Free, one run (${free.settings}) | difference |`,
    '|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** Every loss of both arms over steps: dots are single runs, lines join the best settings' means. */
export function plot(results) {
  const [width, height, left, bottom, top, right] = [640, 400, 60, 50, 30, 20];
  const compared = comparison(results);
  const points = results.runs.flatMap(({ arm, steps, losses }) =>
    Object.entries(losses)
      .filter(([step]) => (arm === 'cosine' ? Number(step) === steps : results.horizons.includes(Number(step))))
      .map(([step, loss]) => ({ arm, step: Number(step), loss })),
  );
  const losses = points.map(({ loss }) => loss);
  const [low, high] = [Math.floor(Math.min(...losses) * 20) / 20, Math.ceil(Math.max(...losses) * 20) / 20];
  const [first, last] = [Math.min(...results.horizons) / 1.2, Math.max(...results.horizons) * 1.2];
  const x = (step) =>
    left + ((Math.log(step) - Math.log(first)) / (Math.log(last) - Math.log(first))) * (width - left - right);
  const y = (loss) => top + ((high - loss) / (high - low)) * (height - top - bottom);
  const colour = { cosine: '#c2571a', schedulefree: '#1a6fb5' };
  const line = (arm, pick) =>
    `<polyline fill="none" stroke="${colour[arm]}" stroke-width="2" points="${compared.map((row) => `${x(row.horizon).toFixed(1)},${y(pick(row).mean).toFixed(1)}`).join(' ')}"/>`;
  const ticks = Array.from({ length: 6 }, (_, index) => low + ((high - low) * index) / 5);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="13">
<rect width="${width}" height="${height}" fill="white"/>
${ticks.map((loss) => `<line x1="${left}" x2="${width - right}" y1="${y(loss).toFixed(1)}" y2="${y(loss).toFixed(1)}" stroke="#ddd"/><text x="${left - 8}" y="${(y(loss) + 4).toFixed(1)}" text-anchor="end">${loss.toFixed(2)}</text>`).join('\n')}
${results.horizons.map((step) => `<text x="${x(step).toFixed(1)}" y="${height - bottom + 20}" text-anchor="middle">${step}</text>`).join('\n')}
<text x="${(left + width - right) / 2}" y="${height - 10}" text-anchor="middle">steps</text>
<text x="16" y="${(top + height - bottom) / 2}" transform="rotate(-90 16 ${(top + height - bottom) / 2})" text-anchor="middle">held-out loss, nats per byte</text>
${points.map(({ arm, step, loss }) => `<circle cx="${(x(step) + (arm === 'cosine' ? -6 : 6)).toFixed(1)}" cy="${y(loss).toFixed(1)}" r="3" fill="${colour[arm]}" fill-opacity="0.45"/>`).join('\n')}
${line('cosine', (row) => row.cosine)}
${line('schedulefree', (row) => row.free)}
<text x="${width - right - 4}" y="${top + 14}" text-anchor="end" fill="${colour.cosine}">AdamW, cosine tuned for each length (${compared.length} runs)</text>
<text x="${width - right - 4}" y="${top + 32}" text-anchor="end" fill="${colour.schedulefree}">Schedule-Free AdamW (one run)</text>
</svg>
`;
}
