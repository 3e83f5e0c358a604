// `npm run bench [part of a name]`: runs the benchmarks of this folder and prints one table. A benchmark is a module that
// exports `name` and `async run()`, which gives rows { name, value, unit, ratio?, yardstick? }: `ratio` is the value as a
// multiple of what the yardstick reached in the same run.
import fs from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('.', import.meta.url));
const [filter = ''] = process.argv.slice(2);

/** At least three significant digits, without an exponent. */
function format(value) {
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1)));
  return value.toLocaleString('en-US', { minimumFractionDigits: 0, maximumFractionDigits: Math.min(digits, 6) });
}

function cells(bench, { name, value, unit, ratio, yardstick }) {
  const compared = ratio === undefined ? '' : `${format(ratio)}x`;
  return [bench, name, format(value), unit, compared, yardstick ?? ''];
}

/** Columns padded to one width; numbers end in one line. */
function table(rows) {
  const header = ['bench', 'what', 'value', 'unit', 'ratio', 'yardstick'];
  const widths = header.map((_, column) => Math.max(...[header, ...rows].map((row) => row[column].length)));
  const line = (row) =>
    row
      .map((cell, column) =>
        column === 2 || column === 4 ? cell.padStart(widths[column]) : cell.padEnd(widths[column]),
      )
      .join('  ')
      .trimEnd();
  return [line(header), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

function machine() {
  const [cpu] = os.cpus();
  const memory = `${Math.round(os.totalmem() / 2 ** 30)} GiB`;
  return `${os.availableParallelism()} x ${cpu?.model.trim() ?? 'unknown CPU'}, ${memory}, ${os.platform()} ${os.arch()}, Node ${process.version}`;
}

const files = fs
  .readdirSync(folder)
  .filter((file) => file.endsWith('.mjs') && file !== 'run.mjs' && file.includes(filter));
const rows = [];
for (const file of files.toSorted()) {
  const bench = await import(new URL(file, import.meta.url).href);
  console.error(`running ${bench.name} ...`);
  for (const row of await bench.run()) rows.push(cells(bench.name, row));
}
if (rows.length === 0) {
  console.error(`No benchmark's file name contains "${filter}".`);
  process.exit(2);
}
console.log(`\n${table(rows)}\n\n${machine()}`);
