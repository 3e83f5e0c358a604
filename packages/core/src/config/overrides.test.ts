import { expect, test } from 'vitest';

import { applyOverrides } from './overrides.ts';

const config = {
  optimizer: 'adamw',
  plugins: [],
  model: { blocks: [{ block: 'attention', heads: 4 }] },
  train: { steps: 500 },
};

test.each([
  ['train.steps=40', { train: { steps: 40 } }],
  ['train.gradClip=1e-3', { train: { steps: 500, gradClip: 0.001 } }],
  ['train.evalEvery=5%', { train: { steps: 500, evalEvery: '5%' } }],
  ['model.bias=false', { model: { blocks: config.model.blocks, bias: false } }],
  ['model.blocks.0.heads=2', { model: { blocks: [{ block: 'attention', heads: 2 }] } }],
  ['model.blocks=[{ block: mlp, repeat: 2 }]', { model: { blocks: [{ block: 'mlp', repeat: 2 }] } }],
  ['optimizer=lion', { optimizer: 'lion' }],
  ['optimizer.lr=0.01', { optimizer: { name: 'adamw', lr: 0.01 } }],
  ['schedule.warmup=5', { schedule: { warmup: 5 } }],
  ['plugins.0=@llmx/plugin-mtp', { plugins: ['@llmx/plugin-mtp'] }],
  ['sinks.0=console', { sinks: ['console'] }],
  ['data.train=a=b', { data: { train: 'a=b' } }],
])('--set %s', (set, changed) => {
  expect(applyOverrides(config, [set])).toEqual({ ...config, ...changed });
});

test('settings apply in order', () => {
  expect(applyOverrides({}, ['optimizer=lion', 'optimizer.lr=1', 'optimizer.lr=2'])).toEqual({
    optimizer: { name: 'lion', lr: 2 },
  });
});

test('a setting cannot reach a prototype', () => {
  applyOverrides({}, ['__proto__.polluted=1', 'constructor.prototype.polluted=1']);
  expect('polluted' in {}).toBe(false);
});

const messageOf = (set: string): string => {
  try {
    applyOverrides(config, [set]);
  } catch (error) {
    return String(error);
  }
  return 'no error';
};

test('what cannot be set is said in one sentence', () => {
  const sets = [
    'train.steps',
    '=3',
    'train..steps=3',
    'train.steps=',
    'model.blocks.7.heads=2',
    'model.blocks.x=2',
    'train.steps.x=2',
    'model.blocks=[{',
    'extends=base.yaml',
  ];
  expect(sets.map(messageOf)).toMatchInlineSnapshot(`
    [
      "LlmxError: --set train.steps is not of the form path=value.",
      "LlmxError: --set =3 is not of the form path=value.",
      "LlmxError: --set train..steps=3 is not of the form path=value.",
      "LlmxError: --set train.steps= has no value.",
      "LlmxError: --set model.blocks.7.heads=2 names entry "7" of model.blocks, which is a list of 1.",
      "LlmxError: --set model.blocks.x=2 names entry "x" of model.blocks, which is a list of 1.",
      "LlmxError: --set train.steps.x=2 sets a key of train.steps, which is 500.",
      "LlmxError: --set model.blocks=[{ has a value that is not YAML (The value cannot be parsed at line 2, column 1: unexpected end of the stream within a flow collection).",
      "LlmxError: --set extends=base.yaml has no effect: files are merged before settings.",
    ]
  `);
});
