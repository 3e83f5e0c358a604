import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';

import { builtin as actualBuiltin } from '../builtin.ts';
import { blockPatternSchema, type RunConfig } from '../config/schema.ts';
import { starterConfig } from '../config/starter.ts';
import { LlmxError } from '../errors/index.ts';
import { tf } from '../tensor/index.ts';
import {
  defineArchitecture,
  defineBackend,
  defineBlock,
  defineObjective,
  defineOptimizer,
  definePlugin,
  defineSchedule,
  defineSink,
  defineSource,
} from './define.ts';
import { selectedArchitecture } from './model-options.ts';
import { type Resolved, resolveConfig, type ResolveOptions, restoreConfig } from './resolve.ts';

const size = z.int().min(1);
const norm = z.enum(['layernorm', 'rmsnorm']).default('layernorm');
const nothing = (): never => ({}) as never;
const component = { summary: 'For tests.', build: nothing };

const builtin = definePlugin({
  name: '@llmx/core',
  version: '0.1.0',
  llmx: '*',
  components: [
    defineArchitecture({
      ...component,
      name: 'decoder',
      config: z.strictObject({
        dModel: size.default(128),
        norm,
        dropout: z.number().min(0).lt(1).default(0),
        blocks: blockPatternSchema.default([{ block: 'attention', repeat: 2 }]),
      }),
    }),
    defineArchitecture({ ...component, name: 'flat', config: z.strictObject({ width: size }) }),
    defineBlock({
      ...component,
      name: 'attention',
      config: z.strictObject({
        heads: size.default(4),
        norm,
        dropout: z.number().default(0.5),
        window: size.optional(),
      }),
    }),
    defineBlock({ ...component, name: 'conv', config: z.strictObject({ kernel: size, norm }) }),
    defineObjective({ ...component, name: 'next-token', config: z.strictObject({}) }),
    defineOptimizer({
      ...component,
      name: 'adamw',
      config: z.strictObject({
        lr: z.number().default(0.001),
        beta1: z.number().lt(1).default(0.9),
        beta2: z.number().default(0.95),
        weightDecay: z.number().default(0.1),
      }),
    }),
    defineSchedule({ ...component, name: 'cosine', config: z.strictObject({ warmup: z.int().default(0) }) }),
    defineSink({
      ...component,
      name: 'board',
      config: z.strictObject({ project: z.string(), tags: z.array(z.string()).default([]) }),
    }),
    defineSource({ ...component, name: 'llmx-tokens', config: z.strictObject({}) }),
    defineBackend({ ...component, name: 'cpu', config: z.strictObject({ threads: size.default(1) }) }),
  ],
});

let folder: string;
beforeEach(() => void (folder = realpathSync(mkdtempSync(join(tmpdir(), 'llmx-resolve-')))));
afterEach(() => rmSync(folder, { recursive: true }));

const options = (): ResolveOptions => ({
  host: { cwd: folder, installRoot: folder, firstParty: { 'block:slstm': '@llmx/plugin-xlstm' }, log: () => undefined },
  builtin,
  coreVersion: '0.1.0',
  coreModule: { tf, z, definePlugin },
});

function resolve(yaml: string, ...sets: string[]): Promise<Resolved> {
  writeFileSync(join(folder, 'c.yaml'), yaml);
  return resolveConfig({ ...options(), file: 'c.yaml', sets });
}

async function messagesOf(yaml: string, ...sets: string[]): Promise<string[]> {
  const error: unknown = await resolve(yaml, ...sets).catch((reason: unknown) => reason);
  if (!LlmxError.is(error)) throw new Error(`an error was expected, got ${String(error)}`);
  return `${error.message}\n${error.hint ?? ''}`.replaceAll(folder, '<folder>').trim().split('\n');
}

const MINIMAL = 'data: { train: d }';
const modelOf = async (model: string): Promise<RunConfig['model']> =>
  (await resolve(`${MINIMAL}\nmodel: ${model}`)).config.model;

test('the smallest configuration, with every default filled in', async () => {
  const { config, file, given } = await resolve(MINIMAL);
  expect(file).toBe(join(folder, 'c.yaml'));
  expect([...given]).toEqual(['data', 'data.train']);
  expect({ ...config, data: { ...config.data, train: '<folder>/d' } }).toMatchInlineSnapshot(`
    {
      "backend": {
        "name": "auto",
      },
      "data": {
        "packing": "stream",
        "source": {
          "name": "llmx-tokens",
        },
        "train": "<folder>/d",
        "valSplit": "val",
      },
      "model": {
        "architecture": "decoder",
        "blocks": [
          {
            "block": "attention",
            "dropout": 0.5,
            "heads": 4,
            "norm": "layernorm",
            "repeat": 2,
          },
        ],
        "contextLength": 256,
        "dModel": 128,
        "dropout": 0,
        "norm": "layernorm",
      },
      "objective": {
        "name": "next-token",
      },
      "optimizer": {
        "beta1": 0.9,
        "beta2": 0.95,
        "lr": 0.001,
        "name": "adamw",
        "weightDecay": 0.1,
      },
      "plugins": [],
      "precision": "fp32",
      "schedule": {
        "name": "cosine",
        "warmup": 0,
      },
      "sinks": [],
      "train": {
        "batchSize": 16,
        "checkpointEvery": 100,
        "evalEvery": 100,
        "evalTokens": 65536,
        "freeze": [],
        "gradAccumulation": 1,
        "gradClip": 1,
        "guard": {
          "maxSkips": 3,
          "spikeSigma": 0,
          "spikeWindow": 100,
        },
        "keepBest": true,
        "keepEvery": 0,
        "keepLast": 2,
        "logEvery": 10,
        "seed": 1,
        "steps": 1000,
      },
    }
  `);
  expect(config.data.train).toBe(join(folder, 'd'));
});

const COMPLETE = `
plugins: []
data: { train: data/sotu }
model:
  architecture: decoder
  dModel: 128
  contextLength: 256
  blocks: [{ block: attention, repeat: 4, heads: 4 }]
objective: { name: next-token }
optimizer: { name: adamw, lr: 0.001, beta1: 0.9, beta2: 0.95, weightDecay: 0.1 }
schedule: { name: cosine, warmup: 50 }
train: { steps: 500, batchSize: 16, gradAccumulation: 1, gradClip: 1.0, evalEvery: 100, checkpointEvery: 100, seed: 1 }
sinks: [{ name: board, project: p }]
backend: { name: cpu, threads: 2 }
precision: fp32
`;

test('a resolved configuration resolves to itself', async () => {
  const { config } = await resolve(COMPLETE, 'model.norm=rmsnorm', 'model.vocabSize=300');
  expect((await resolve(JSON.stringify(config))).config).toEqual(config);
  const restored = await restoreConfig(JSON.parse(JSON.stringify(config)), join(folder, 'c.yaml'), options());
  expect(restored.config).toEqual(config);
});

test('the starter resolves with the built-in components', async () => {
  writeFileSync(join(folder, 'llmx.config.yaml'), starterConfig('my data'));
  const { config } = await resolveConfig({ ...options(), builtin: actualBuiltin });
  expect(config).toMatchObject({
    data: { train: join(folder, 'my data') },
    train: { steps: 500 },
    schedule: { warmup: 50 },
  });
  expect(config.model['blocks']).toMatchObject([{ block: 'attention', repeat: 4, heads: 4 }]);
});

test('what was given is known', async () => {
  const { given } = await resolve(
    `${MINIMAL}\ntrain: { evalEvery: 100 }`,
    'model.blocks=[{ block: attention, heads: 2 }]',
  );
  expect(
    ['train.evalEvery', 'train.checkpointEvery', 'model.blocks.0.heads', 'model.dModel'].map((path) => given.has(path)),
  ).toEqual([true, false, true, false]);
});

test('settings of model reach the blocks that know them, and an entry wins', async () => {
  const model = await modelOf(
    '{ norm: rmsnorm, heads: 8, kernel: 3, blocks: [{ block: attention, repeat: 2 }, { block: conv }, { block: attention, heads: 2, norm: layernorm }] }',
  );
  expect(model['norm']).toBe('rmsnorm');
  expect(model['blocks']).toEqual([
    { block: 'attention', repeat: 2, heads: 8, norm: 'rmsnorm', dropout: 0.5 },
    { block: 'conv', repeat: 1, kernel: 3, norm: 'rmsnorm' },
    { block: 'attention', repeat: 1, heads: 2, norm: 'layernorm', dropout: 0.5 },
  ]);
});

test('defaults of the architecture never reach blocks, settings reach its default pattern', async () => {
  expect((await modelOf('{ heads: 2 }'))['blocks']).toEqual([
    { block: 'attention', repeat: 2, heads: 2, norm: 'layernorm', dropout: 0.5 },
  ]);
  expect((await modelOf('{ dropout: 0.1 }'))['blocks']).toMatchObject([{ dropout: 0.1 }]);
});

test('an architecture without blocks has no such step', async () => {
  expect(await modelOf('{ architecture: flat, width: 3, vocabSize: 300 }')).toEqual({
    architecture: 'flat',
    vocabSize: 300,
    contextLength: 256,
    width: 3,
  });
  expect(selectedArchitecture({ architecture: 'flat', vocabSize: 300, contextLength: 256, width: 3 })).toEqual({
    name: 'flat',
    width: 3,
  });
  expect(await messagesOf(`${MINIMAL}\nmodel: { architecture: flat, width: 3, heads: 2, blocks: [] }`))
    .toMatchInlineSnapshot(`
    [
      "There is no setting "model.heads".",
      "There is no setting "model.blocks".",
      "model takes: architecture, contextLength, vocabSize, width.",
    ]
  `);
});

test('every problem of every setting comes at once', async () => {
  const messages = await messagesOf(`
data: { packing: documents, source: parquet }
model: { dmodel: 3, heads: 0, contextLength: 0, blocks: [{ block: attention }, { block: conv, kernal: 2 }, { block: slstm }] }
optimizer: { name: adamw, beta1: 1, betta2: 0 }
schedule: cosin
sinks: [{ name: board, tags: x }, console]
backend: { threads: 2 }
train: { steps: 0 }
`);
  expect(messages).toMatchInlineSnapshot(`
    [
      "data.train is missing: expected text.",
      "model.contextLength is 0: expected at least 1.",
      "train.steps is 0: expected at least 1.",
      "There is no source "parquet".",
      "optimizer.beta1 is 1: expected less than 1.",
      "There is no setting "optimizer.betta2".",
      "There is no schedule "cosin".",
      "There is no setting "backend.threads" of the choice auto.",
      "sinks.0.project is missing: expected text.",
      "sinks.0.tags is "x": expected a list.",
      "There is no sink "console".",
      "model.heads is 0: expected at least 1.",
      "model.blocks.1.kernel is missing: expected an integer.",
      "There is no setting "model.blocks.1.kernal".",
      "There is no block "slstm".",
      "Known sources: llmx-tokens.",
      "Did you mean "optimizer.beta2"?",
      "Did you mean "cosine"?",
      "Name a backend to give it settings.",
      "Known sinks: board.",
      "Did you mean "model.blocks.1.kernel"?",
      "Run "npm install @llmx/plugin-xlstm" and add @llmx/plugin-xlstm to plugins.",
    ]
  `);
});

test('malformed selections and lists are told once', async () => {
  expect(await messagesOf(`${MINIMAL}\noptimizer: 3\nmodel: small\nsinks: board`)).toMatchInlineSnapshot(`
    [
      "model is "small": expected settings as key: value.",
      "optimizer is 3: expected a name or { name, ...options }.",
      "sinks is "board": expected a list.",
    ]
  `);
  expect(await messagesOf(`${MINIMAL}\nmodel: { blocks: attention }`)).toMatchInlineSnapshot(`
    [
      "model.blocks is "attention": expected a list.",
    ]
  `);
  expect(await messagesOf(`${MINIMAL}\nmodel: { blocks: [{ heads: 2 }, { block: attention, repeat: 0 }] }`))
    .toMatchInlineSnapshot(`
    [
      "model.blocks.0.block is missing: expected text.",
      "model.blocks.1.repeat is 0: expected at least 1.",
    ]
  `);
  expect(await messagesOf(`${MINIMAL}\nplugins: [{ limit: 1 }]`)).toMatchInlineSnapshot(`
    [
      "plugins.0.name is missing: expected text.",
    ]
  `);
  expect(await messagesOf('')).toMatchInlineSnapshot(`
    [
      "data is missing: expected { train: <folder of a prepared dataset> }.",
    ]
  `);
});

test('selections without a name are those of the default', async () => {
  const { config } = await resolve(
    MINIMAL,
    'optimizer.lr=0.5',
    'schedule.warmup=3',
    'backend=cpu',
    'backend.threads=4',
  );
  expect(config.optimizer).toMatchObject({ name: 'adamw', lr: 0.5 });
  expect(config.schedule).toEqual({ name: 'cosine', warmup: 3 });
  expect(config.backend).toEqual({ name: 'cpu', threads: 4 });
});

const plugin = (name: string, hook: string): void =>
  writeFileSync(
    join(folder, `${name}.ts`),
    `import { definePlugin, z } from '@llmx/core';
     export default definePlugin({
       name: '${name}', version: '1.0.0', llmx: '*', config: z.strictObject({ limit: z.number().default(2) }),
       setup: (options) => ({ hooks: { resolveConfig(config: Record<string, any>) { ${hook} } } }),
     });`,
  );

test('plugins edit the configuration before it is checked', async () => {
  plugin('longer', 'return { ...config, train: { ...config.train, steps: 10 * options.limit, evalEvery: 5 } };');
  const { config, plugins, hooks, given } = await resolve(`${MINIMAL}\nplugins: [./longer.ts]\ntrain: { seed: 3 }`);
  expect(config.train).toMatchObject({ steps: 20, evalEvery: 5, seed: 3 });
  expect(given.has('train.evalEvery')).toBe(true);
  expect(config.plugins).toEqual([{ name: join(folder, 'longer.ts'), limit: 2 }]);
  expect(plugins.map(({ name }) => name)).toEqual(['@llmx/core', 'longer']);
  expect(hooks.order('resolveConfig')).toEqual(['longer']);
  expect((await resolve(JSON.stringify(config))).config).toEqual(config);
});

test('a stored configuration is neither edited again nor are settings inherited', async () => {
  plugin('longer', 'return { ...config, train: { ...config.train, steps: (config.train?.steps ?? 0) + 1 } };');
  const { config } = await resolve(`${MINIMAL}\nplugins: [./longer.ts]`);
  const stored = { ...config, model: { ...config.model, dropout: 0.3 } };
  const restored = await restoreConfig(stored, join(folder, 'c.yaml'), options());
  expect([config.train.steps, restored.config.train.steps]).toEqual([1, 1]);
  expect(restored.config.model['blocks']).toMatchObject([{ dropout: 0.5 }]);
});

test('plugins can be left out', async () => {
  writeFileSync(join(folder, 'c.yaml'), `${MINIMAL}\nplugins: [absent]`);
  const { config, plugins } = await resolveConfig({ ...options(), file: 'c.yaml', noPlugins: true });
  expect([config.plugins, plugins.length]).toEqual([[], 1]);
});

test('a hook cannot change which plugins there are', async () => {
  plugin('greedy', "return { ...config, plugins: [...config.plugins, 'other'] };");
  expect(await messagesOf(`${MINIMAL}\nplugins: [./greedy.ts]`)).toMatchInlineSnapshot(`
    [
      "A resolveConfig hook (of greedy) changed plugins, which are loaded by then.",
    ]
  `);
});

test('paths of --set are relative to the current folder', async () => {
  const file = join(mkdtempSync(join(folder, 'elsewhere-')), 'c.yaml');
  writeFileSync(file, MINIMAL);
  const { config } = await resolveConfig({ ...options(), sets: ['data.train=../other'], file });
  expect(config.data.train).toBe(join(folder, '../other'));
});
