import { at, builtin, keyedRng, Registry, tf } from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { beforeAll, expect, test } from 'vitest';

import plugin from './index.ts';

beforeAll(() => useBackend('cpu'));

const registry = new Registry([builtin, plugin]);
const build = (dModel: number, options = {}) =>
  registry.create(
    'block',
    { name: 'mlstm-large', ...options },
    { vocabSize: 8, contextLength: 8, dModel, index: 0, depth: 2 },
  );

test('gates start as the authors trained it: input gates shut, forget gates open by head', () => {
  tf.tidy(() => {
    const params = build(32).init(keyedRng(1, 'init'));
    expect([...at(params, 'inputGate.bias').dataSync()]).toEqual([-10, -10, -10, -10]);
    expect([...at(params, 'forgetGate.bias').dataSync()]).toEqual([3, 4, 5, 6]);
    for (const gate of ['inputGate', 'forgetGate', 'outputGate'])
      expect(tf.max(tf.abs(at(params, `${gate}.weight`))).dataSync()[0]).toBe(0);
  });
});

test('the size of a state is that of the keys times the values', () => {
  const state = build(96, { heads: 6, keyFactor: 0.25 }).initialState(3) as Record<string, tf.Tensor>;
  expect(Object.entries(state).map(([name, { shape }]) => [name, shape])).toEqual([
    ['memory', [3, 6, 4, 16]],
    ['normalizer', [3, 6, 4]],
    ['maximum', [3, 6]],
  ]);
  tf.dispose(Object.values(state));
});
