import { expect, test } from 'vitest';

import { bytes, duration, grouped, shellWord, shortPath, table, timeLeft, visible, wrappedTable } from './format.ts';

test('amounts', () => {
  expect([0, 999, 1000, 12_345_678].map((value) => bytes(value))).toEqual(['0 B', '999 B', '1.0 kB', '12.3 MB']);
  expect(grouped(1234567.6)).toBe('1,234,568');
});

test('durations', () => {
  expect([0.4, 59, 60, 3599.7, 7384].map((seconds) => duration(seconds))).toEqual([
    '0 s',
    '59 s',
    '1 min 00 s',
    '1 h 00 min',
    '2 h 03 min',
  ]);
});

test('time left goes by the pace so far, and is not known at the start', () => {
  expect(timeLeft(10, 1, 4)).toBe('30 s left');
  expect(timeLeft(1, 0, 4)).toBe('');
  expect(timeLeft(10, 4, 4)).toBe('');
});

test('tables', () => {
  expect(
    table(
      [
        ['a', '1', 'x'],
        ['bcd', '20', ''],
      ],
      [1],
    ),
  ).toEqual(['a     1  x', 'bcd  20']);
});

test('the last column of a wrapped table is wrapped beside the others', () => {
  const rows = [['name', 'one two three four five six seven']];
  expect(wrappedTable(rows, 31)).toEqual(['name  one two three four five', '      six seven']);
  expect(wrappedTable(rows, Infinity)).toEqual(['name  one two three four five six seven']);
});

test('a path is short inside of the current folder only', () => {
  expect(['/a/b/c', '/a/b', '/a/d'].map((path) => shortPath(path, '/a/b'))).toEqual(['c', '.', '/a/d']);
});

test('words for a shell', () => {
  expect(['runs/a-1', 'my run', "it's", ''].map((word) => shellWord(word))).toEqual([
    'runs/a-1',
    "'my run'",
    "'it'\\''s'",
    "''",
  ]);
});

test('control and format characters become visible, others stay', () => {
  expect(visible('a\n\t\u001b[31m\u007f\u0085\u202e b\u00e9')).toBe(
    'a\u240a\u2409\u241b[31m\u2421<U+0085><U+202E> b\u00e9',
  );
  expect(visible('a\n\u0007', '\n\t')).toBe('a\n\u2407');
});
