import { expect, test } from 'vitest';
import { z } from 'zod';

import { below } from '../config/problems.ts';
import { LlmxError } from '../errors/index.ts';
import { defineOptimizer, definePlugin, defineSchedule } from './define.ts';
import { Registry } from './registry.ts';

const sgd = defineOptimizer({
  name: 'sgd',
  summary: 'Plain descent.',
  config: z.strictObject({ lr: z.number().min(0).default(0.1) }),
  build: ({ lr }) => ({ init: () => ({ lr }), update: ({ params, state }) => ({ params, state }) }),
});
const scaled = defineOptimizer({
  name: 'scaled',
  summary: 'Another optimizer, scaled.',
  paper: 'https://example.org/scaled',
  config: z.strictObject({ lr: z.number().default(1), base: z.looseObject({ name: z.string() }) }),
  build: ({ lr, base }, { create }) => create('optimizer', { ...base, lr }, {}),
});
const flat = defineSchedule({
  name: 'flat',
  summary: 'Nothing changes.',
  config: z.strictObject({ until: z.union([z.int(), z.string()]).default('5%') }),
  build: ({ until }, { steps }) => {
    const last = steps(until);
    return ({ step }) => (step <= last ? 1 : 0);
  },
});
const faulty = defineSchedule({
  name: 'faulty',
  summary: 'Cannot be built.',
  config: z.strictObject({ kind: z.enum(['error', 'llmx']) }),
  build: ({ kind }) => {
    throw kind === 'error' ? new Error('no table') : new LlmxError('LLMX_VOCAB_TOO_LARGE', 'Too large.');
  },
});
const core = definePlugin({ name: 'core', version: '0.1.0', llmx: '*', components: [sgd, flat] });
const extra = definePlugin({ name: 'extra', version: '2.0.0', llmx: '*', components: [scaled, faulty] });
const registry = new Registry([core, extra], { 'optimizer:adamw-schedulefree': '@llmx/plugin-schedulefree' });

test('builds with defaults, context and other components', () => {
  const optimizer = registry.create('optimizer', { name: 'scaled', lr: 3, base: { name: 'sgd' } }, {});
  expect(optimizer.init({})).toEqual({ lr: 3 });
  const schedule = registry.create('schedule', { name: 'flat' }, { steps: () => 2 });
  expect([1, 2, 3].map((step) => schedule({ step, tokens: 0, totalSteps: 9 }))).toEqual([1, 1, 0]);
});

test('refuses invalid options', () => {
  expect(() => registry.create('optimizer', { name: 'sgd', lr: -1, momentum: 0 }, {}))
    .toThrowErrorMatchingInlineSnapshot(`
    [LlmxError: sgd.lr is -1: expected at least 0.
    There is no setting "sgd.momentum".]
  `);
});

test('checks options for the configuration', () => {
  expect(registry.check('optimizer', { name: 'sgd' })).toEqual({ value: { name: 'sgd', lr: 0.1 } });
  const { problems } = registry.check('optimizer', { name: 'sgd', lr: 'x' }, below('optimizer'));
  expect(problems).toMatchObject([{ message: 'optimizer.lr is "x": expected a number.' }]);
});

test('a rule of a schema that fails is the failure of its plugin', () => {
  const failing = (): boolean => {
    throw new TypeError('x is undefined');
  };
  const strange = defineSchedule({
    name: 'strange',
    summary: 'S.',
    config: z.strictObject({ a: z.int().refine(() => failing()) }),
    build: () => () => 1,
  });
  const plugins = [definePlugin({ name: 'odd', version: '1.0.0', llmx: '*', components: [strange] })];
  expect(new Registry(plugins).check('schedule', { name: 'strange', a: 1 }).problems).toMatchObject([
    { code: 'LLMX_PLUGIN_FAILED', plugin: 'odd' },
  ]);
});

test('an unknown component gets the nearest name, the package that has it, or the list', () => {
  const hintOf = (name: string): unknown => {
    const { problems = [] } = registry.check('optimizer', { name });
    return problems.map(({ code, message, hint }) => `${code}: ${message} ${hint}`);
  };
  expect(['sdg', 'adamw-schedulefree', 'muon'].map(hintOf)).toMatchInlineSnapshot(`
    [
      [
        "LLMX_COMPONENT_UNKNOWN: There is no optimizer "sdg". Did you mean "sgd"?",
      ],
      [
        "LLMX_COMPONENT_UNKNOWN: There is no optimizer "adamw-schedulefree". Run "npm install @llmx/plugin-schedulefree" and add @llmx/plugin-schedulefree to plugins.",
      ],
      [
        "LLMX_COMPONENT_UNKNOWN: There is no optimizer "muon". Known optimizers: scaled, sgd.",
      ],
    ]
  `);
  expect(() => registry.get('task', 'arc')).toThrow('There is no task "arc".');
});

test('what a build throws carries the plugin', () => {
  const build = (kind: string) => () => registry.create('schedule', { name: 'faulty', kind }, { steps: () => 1 });
  expect(build('error')).toThrow(
    expect.objectContaining({
      code: 'LLMX_PLUGIN_FAILED',
      plugin: 'extra',
      message: '[plugin extra 2.0.0] schedule "faulty" could not be built: no table.',
    }),
  );
  expect(build('llmx')).toThrow(expect.objectContaining({ code: 'LLMX_VOCAB_TOO_LARGE', plugin: 'extra' }));
});

test('one kind and name belongs to one plugin', () => {
  const twin = definePlugin({ name: 'twin', version: '1.0.0', llmx: '*', components: [sgd, flat, flat] });
  expect(() => new Registry([core, twin])).toThrowErrorMatchingInlineSnapshot(`
    [LlmxError: [plugin core 0.1.0] and [plugin twin 1.0.0] both register the optimizer "sgd".
    [plugin core 0.1.0] and [plugin twin 1.0.0] both register the schedule "flat".]
  `);
});

test('lists components with their origin and options', () => {
  expect(registry.list().map(({ kind, name, plugin }) => `${kind} ${name} ${plugin.name} ${plugin.version}`)).toEqual([
    'optimizer sgd core 0.1.0',
    'schedule flat core 0.1.0',
    'optimizer scaled extra 2.0.0',
    'schedule faulty extra 2.0.0',
  ]);
  expect(registry.list()[2]).toMatchObject({
    summary: 'Another optimizer, scaled.',
    paper: 'https://example.org/scaled',
    options: { type: 'object', required: ['base'], properties: { lr: { type: 'number', default: 1 } } },
  });
});
