import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect, test } from 'vitest';
import { z } from 'zod';

import { type ComponentInfo, configJsonSchema } from './json-schema.ts';
import { blockPatternSchema } from './schema.ts';
import { starterConfig } from './starter.ts';
import { parseYaml } from './yaml.ts';

const size = z.int().min(1);
const component = (kind: string, name: string, shape: z.core.$ZodLooseShape): ComponentInfo => ({
  kind,
  name,
  summary: `The ${kind} ${name}.`,
  config: z.strictObject(shape),
});

const components = [
  component('architecture', 'decoder', {
    dModel: size.default(128),
    norm: z.enum(['layernorm', 'rmsnorm']).default('rmsnorm'),
    blocks: blockPatternSchema.default([{ block: 'attention', repeat: 4 }]),
  }),
  component('architecture', 'flat', { width: size }),
  component('block', 'attention', {
    heads: size.default(4),
    norm: z.enum(['layernorm', 'rmsnorm']).default('rmsnorm'),
  }),
  component('block', 'conv', { heads: z.literal('none').optional(), kernel: size }),
  component('objective', 'next-token', {}),
  component('optimizer', 'adamw', {
    lr: z.number().default(0.001),
    beta1: z.number().default(0.9),
    beta2: z.number().default(0.95),
    weightDecay: z.number().min(0).default(0.1),
  }),
  component('optimizer', 'bare', { lr: z.number() }),
  component('schedule', 'cosine', { warmup: z.int().min(0).default(0) }),
  component('sink', 'board', { project: z.string() }),
  component('backend', 'cpu', {}),
  component('source', 'llmx-tokens', {}),
];

const validate = new Ajv2020({ strict: true, strictTypes: false, allErrors: true }).compile(
  configJsonSchema(components),
);
const validates = (text: string): boolean => validate(parseYaml(text, 'text'));

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
backend: auto
precision: fp32
`;

test.each([
  COMPLETE,
  starterConfig('data/sotu'),
  'data: { train: d }',
  'data: { train: d }\nextends: [a.yaml]\nplugins: [x, { name: ./y.ts, limit: 1 }]',
  'data: { train: d }\noptimizer: { lr: 0.1 }',
  'data: { train: d }\noptimizer: { name: bare, lr: 0.1 }\nbackend: cpu\nsinks: [{ name: board, project: p }]',
  'data: { train: d }\nmodel: { architecture: flat, width: 3, vocabSize: 300 }',
  'data: { train: d }\nmodel: { heads: 8, kernel: 3, norm: layernorm, blocks: [{ block: conv }, { block: attention }] }',
  'data: { train: d, source: llmx-tokens }\ntrain: { steps: 10Mtok, evalEvery: 5%, checkpointEvery: 0 }',
  'data: { train: d }\ntrain: { initFrom: runs/first, freeze: ["blocks.*", norm.weight] }',
])('valid: %s', (text) => {
  expect(validates(text), JSON.stringify(validate.errors)).toBe(true);
});

test.each([
  '{}',
  'data: { train: 3 }',
  'data: { train: d }\nplugin: []',
  'data: { train: d }\noptimizer: bare',
  'data: { train: d }\noptimizer: { name: bare, lr: 0.1, beta1: 1 }',
  'data: { train: d }\noptimizer: lion',
  'data: { train: d }\noptimizer: { name: adamw, weightDecay: -1 }',
  'data: { train: d }\nsinks: [board]',
  'data: { train: d }\nbackend: gpu',
  'data: { train: d }\nbackend: { name: auto, threads: 2 }',
  'data: { train: d }\nmodel: { architecture: flat }',
  'data: { train: d }\nmodel: { architecture: flat, width: 3, heads: 2 }',
  'data: { train: d }\nmodel: { dmodel: 3 }',
  'data: { train: d }\nmodel: { blocks: [{ block: attention, kernel: 3 }] }',
  'data: { train: d }\nmodel: { blocks: [{ block: lstm }] }',
  'data: { train: d }\nmodel: { blocks: [{ heads: 2 }] }',
  'data: { train: d }\ntrain: { steps: 5% }',
  'data: { train: d }\nprecision: fp16',
])('invalid: %s', (text) => {
  expect(validates(text)).toBe(false);
});

test('without components every selection is open', () => {
  const open = new Ajv2020({ strict: true, strictTypes: false }).compile(configJsonSchema([]));
  expect(open(parseYaml(COMPLETE, 'text'))).toBe(true);
});

test('the starter is YAML that names the dataset, whatever its path', () => {
  expect(parseYaml(starterConfig('my "data": #1'), 'text')).toMatchObject({ data: { train: 'my "data": #1' } });
});
