import { expect, test } from 'vitest';

import { checkResumable, configDifferences } from './resumable.ts';
import { configSchema, type RunConfig } from './schema.ts';

const config = configSchema.parse({
  data: { train: '/d' },
  model: { blocks: [{ block: 'attention', heads: 4 }] },
}) as unknown as RunConfig;

test('the same settings, and those that may change', () => {
  expect(() => checkResumable(config, JSON.parse(JSON.stringify(config)) as RunConfig)).not.toThrow();
  const changed = {
    ...config,
    data: { ...config.data, train: '/elsewhere' },
    sinks: [{ name: 'console' }],
    train: { ...config.train, steps: 9, evalEvery: 0, evalTokens: 0, checkpointEvery: 5, keepLast: 9, logEvery: 1 },
  };
  expect(() => checkResumable(config, changed)).not.toThrow();
});

test('everything else that differs is named', () => {
  const changed = {
    ...config,
    model: { ...config.model, blocks: [{ block: 'attention', heads: 2 }, { block: 'mlp' }] },
    optimizer: { name: 'lion' },
    train: { ...config.train, seed: 2, steps: 2 },
  };
  expect(() => checkResumable(config, changed)).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: The run was started with other settings: model.blocks.0.heads was 4 and is now 2; model.blocks.1 was not set and is now {"block":"mlp"}; optimizer was "adamw" and is now {"name":"lion"}; train.seed was 1 and is now 2.]`,
  );
  expect(() => checkResumable(config, changed, ['model', 'optimizer', 'train'])).not.toThrow();
  expect(() => checkResumable(config, { ...config, trainer: 1 }, ['train'])).toThrow('trainer was not set');
});

test('differences by path', () => {
  expect(configDifferences({ a: [1, { b: 2 }], c: undefined }, { a: [1, { b: 3 }, 4] })).toEqual([
    { path: 'a.1.b', before: 2, after: 3 },
    { path: 'a.2', before: undefined, after: 4 },
  ]);
  expect(configDifferences({ a: { b: 1 } }, { a: [1] })).toEqual([{ path: 'a', before: { b: 1 }, after: [1] }]);
});
