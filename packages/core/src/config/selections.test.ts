import { expect, test } from 'vitest';

import { parseSelections } from './selections.ts';

test.each([
  ['parity', [{ name: 'parity' }]],
  ['parity, recall', [{ name: 'parity' }, { name: 'recall' }]],
  ['{ name: parity, lengths: [3, 40] }', [{ name: 'parity', lengths: [3, 40] }]],
  ['recall,{"name": "parity", "seed": 2}', [{ name: 'recall' }, { name: 'parity', seed: 2 }]],
])('%s names components', (text, selections) => {
  expect(parseSelections(text, '--task')).toEqual(selections);
});

test.each(['', ',', '3', 'parity,{ seed: 2 }', '{ name: 3 }', '[parity]'])('%j names none', (text) => {
  expect(() => parseSelections(text, '--task')).toThrow(`--task ${text} `);
});

test('what is wrong is said', () => {
  expect(() => parseSelections('{ seed: 2 }', '--task')).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: --task { seed: 2 } does not name components.]`,
  );
  expect(() => parseSelections('{ name: parity', '--task')).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: --task { name: parity is not YAML (The value cannot be parsed at line 1, column 16: missed comma between flow collection entries).]`,
  );
});
