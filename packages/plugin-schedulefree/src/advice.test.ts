import { expect, test } from 'vitest';

import { advise } from './advice.ts';

const NAMES = ['adamw-schedulefree', 'sgd-schedulefree'];

/** What becomes of a configuration, and what the user is told. */
function advised(config: Record<string, unknown>) {
  const warnings: string[] = [];
  return { config: advise(config, NAMES, (message) => warnings.push(message)), warnings };
}

test('where nothing is said, the schedule is constant and nothing is clipped', () => {
  expect(advised({ optimizer: { name: 'adamw-schedulefree', lr: 0.01 }, train: { steps: 10 } })).toEqual({
    config: {
      optimizer: { name: 'adamw-schedulefree', lr: 0.01 },
      schedule: 'constant',
      train: { steps: 10, gradClip: 0 },
    },
    warnings: [],
  });
  expect(advised({ optimizer: 'sgd-schedulefree' }).config).toEqual({
    optimizer: 'sgd-schedulefree',
    schedule: 'constant',
    train: { gradClip: 0 },
  });
});

test('a constant schedule with warm-up is fine', () => {
  const schedule = { name: 'constant', warmup: 5 };
  expect(advised({ optimizer: 'adamw-schedulefree', schedule, train: { gradClip: 0 } })).toEqual({
    config: { optimizer: 'adamw-schedulefree', schedule, train: { gradClip: 0 } },
    warnings: [],
  });
});

test('another schedule and clipping are kept, with one warning that says why they hurt', () => {
  const config = { optimizer: 'adamw-schedulefree', schedule: { name: 'cosine' }, train: { gradClip: 1 } };
  const result = advised(config);
  expect(result.config).toEqual(config);
  expect(result.warnings).toMatchInlineSnapshot(`
    [
      "With adamw-schedulefree, the schedule "cosine" does what averaging does already (use schedule: constant), and clipping gradients, here at 1, hurt in its paper (use train.gradClip: 0).",
    ]
  `);
  expect(advised({ ...config, schedule: 'constant' }).warnings).toHaveLength(1);
});

test('other optimizers, and configurations that make no sense, are left alone', () => {
  for (const optimizer of [undefined, 'adamw', { name: 'lion' }, 3, ['adamw-schedulefree'], { lr: 1 }])
    expect(advised({ optimizer, schedule: 'cosine', train: 'soon' })).toEqual({ config: undefined, warnings: [] });
});
