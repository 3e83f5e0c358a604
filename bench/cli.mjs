// How long the command takes to start, beside Node doing nothing.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const name = 'cli';

const bin = fileURLToPath(new URL('../packages/cli/bin/llmx.js', import.meta.url));
const RUNS = 9;

/** Median wall-clock seconds of a Node process. */
function seconds(args) {
  const times = Array.from({ length: RUNS }, () => {
    const start = performance.now();
    execFileSync(process.execPath, args, { stdio: 'ignore' });
    return (performance.now() - start) / 1000;
  });
  return times.toSorted((a, b) => a - b)[Math.floor(RUNS / 2)];
}

export async function run() {
  const yardstick = 'node -e 0';
  const nothing = seconds(['-e', '0']);
  return [
    ['llmx --help', [bin, '--help']],
    ['llmx train --help', [bin, 'train', '--help']],
    ['llmx components', [bin, 'components']],
  ].map(([title, args]) => {
    const value = seconds(args);
    return { name: title, value, unit: 's', ratio: value / nothing, yardstick };
  });
}
