import { isAbsolute, relative } from 'node:path';

/** `12,345` */
export const grouped = (value: number): string => Math.round(value).toLocaleString('en-US');

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** `12.3 MB`, in powers of 1000. */
export function bytes(value: number): string {
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return `${(value / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${UNITS[power]}`;
}

/** `1 h 02 min`, `1 min 05 s` or `12 s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const padded = (value: number): string => String(value).padStart(2, '0');
  if (hours > 0) return `${hours} h ${padded(minutes)} min`;
  return minutes > 0 ? `${minutes} min ${padded(whole % 60)} s` : `${whole} s`;
}

/** `12 s left` at the pace so far, `done` of `total` having taken `elapsed` seconds; nothing at the start and at the end. */
export const timeLeft = (elapsed: number, done: number, total: number): string =>
  done === 0 || done >= total ? '' : `${duration((elapsed / done) * (total - done))} left`;

/** The parts of a line that there are, two spaces between. */
export const joined = (...parts: readonly string[]): string => parts.filter((part) => part !== '').join('  ');

/** The narrowest that a wrapped column can be read in. */
const MIN_WRAPPED = 24;

/** Text in lines of at most `width` characters, as far as its words allow. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Lines of a table whose last column is wrapped where the terminal is narrower. */
export function wrappedTable(
  rows: readonly (readonly string[])[],
  columns = process.stdout.columns ?? Infinity,
): string[] {
  const heads = table(rows.map((row) => [...row.slice(0, -1), '|'])).map((line) => line.slice(0, -1));
  return rows.flatMap((row, index) => {
    const head = heads[index] ?? '';
    const width = Math.max(MIN_WRAPPED, columns - head.length - 1);
    return wrapped(row.at(-1) ?? '', width).map((line, number) =>
      `${number === 0 ? head : ' '.repeat(head.length)}${line}`.trimEnd(),
    );
  });
}

/** Rows as lines: cells padded to the width of their column, two spaces between. Columns in `right` end in one line. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, column) => (widths[column] = Math.max(widths[column] ?? 0, cell.length)));
  return rows.map((row) =>
    row
      .map((cell, column) =>
        right.includes(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
}

/** A path as short as it can be written in the current folder. */
export function shortPath(path: string, cwd = process.cwd()): string {
  const short = relative(cwd, path);
  if (short === '') return '.';
  return short.startsWith('..') || isAbsolute(short) ? path : short;
}

/** An argument as a shell takes it. */
export const shellWord = (word: string): string =>
  /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

const CONTROL_PICTURES = 0x2400;
const DELETE = 0x7f;

/** Text with its control and format characters as visible symbols, those in `except` left as they are. */
export const visible = (text: string, except = ''): string =>
  text.replace(/[\p{Cc}\p{Cf}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (except.includes(character)) return character;
    if (code < 0x20) return String.fromCharCode(CONTROL_PICTURES + code);
    return code === DELETE
      ? String.fromCharCode(CONTROL_PICTURES + 0x21)
      : `<U+${code.toString(16).toUpperCase().padStart(4, '0')}>`;
  });
