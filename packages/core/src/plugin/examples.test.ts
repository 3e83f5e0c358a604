import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import * as core from '../index.ts';
import { keyedRng, tf } from '../tensor/index.ts';
import { useBackend } from '../testing/backends.ts';
import { expectClose } from '../testing/close.ts';
import { VERSION } from '../version.ts';
import { selectedArchitecture } from './model-options.ts';
import { type Resolved, resolveConfig } from './resolve.ts';
import type { BuildContexts, HostBatch, Model, StateTree } from './types.ts';

const example = (name: string): string => fileURLToPath(new URL(`./examples/${name}.ts`, import.meta.url));
const CONFIG = `
plugins: [${example('retention')}, ${example('sign-momentum')}, { name: ${example('z-loss')}, limit: 1, patience: 2 }]
data: { train: d }
model: { dModel: 16, heads: 2, contextLength: 8, blocks: [{ block: attention }, { block: retention, repeat: 2 }] }
objective: { name: z-loss, coefficient: 0.5 }
optimizer: sign-momentum
`;

let folder: string;
let resolved: Resolved;
beforeAll(async () => {
  await useBackend('cpu');
  folder = mkdtempSync(join(tmpdir(), 'llmx-examples-'));
  writeFileSync(join(folder, 'c.yaml'), CONFIG);
  resolved = await resolveConfig({
    host: { cwd: folder, installRoot: folder, firstParty: {}, log: () => undefined },
    builtin,
    coreVersion: VERSION,
    coreModule: core,
    file: 'c.yaml',
  });
});
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  tf.engine().startScope();
  return () => tf.engine().endScope();
});

const sizes: Omit<BuildContexts['architecture'], 'create'> = { vocabSize: 11, contextLength: 8 };
const buildModel = (): Model =>
  resolved.registry.create('architecture', selectedArchitecture(resolved.config.model), sizes);
const context = { training: false, dropout: (x: tf.Tensor) => x };
const tokens = (values: number[][]): tf.Tensor => tf.tensor2d(values, undefined, 'int32');

test('the examples load beside the built-in components', () => {
  const { config, plugins } = resolved;
  expect(plugins.map(({ name }) => name)).toEqual([
    '@llmx/core',
    'llmx-plugin-retention',
    'llmx-plugin-sign-momentum',
    'llmx-plugin-z-loss',
  ]);
  expect(config.optimizer).toEqual({ name: 'sign-momentum', lr: 1e-4, beta1: 0.9, beta2: 0.99, weightDecay: 0.1 });
  expect(config.model['blocks']).toMatchObject([{ heads: 2 }, { block: 'retention', repeat: 2, heads: 2 }]);
});

test('retention decodes what it computes in parallel, and looks at neither the future nor other documents', () => {
  const block = resolved.registry.create(
    'block',
    { name: 'retention', heads: 2 },
    { ...sizes, dModel: 16, index: 0, depth: 1 },
  );
  const params = block.init(keyedRng(1, 'init'));
  const x = keyedRng(1, 'test').normal('x', [2, 6, 16], 1);
  const whole = block.forward(params, x, context);
  let state: StateTree = block.initialState(2);
  const parts: tf.Tensor[] = [];
  for (const [start, length] of [
    [0, 1],
    [1, 3],
    [4, 2],
  ] as const) {
    const step = block.step(params, tf.slice(x, [0, start, 0], [2, length, 16]), state, { position: start });
    parts.push(step.x);
    state = step.state;
  }
  expectClose(tf.concat(parts, 1), whole, 1e-5, 'decoded');
  const from = (position: number, length: number) => tf.slice(x, [0, position, 0], [2, length, 16]);
  const second = block.step(params, from(0, 2), block.initialState(2), { position: 0 }).state;
  const ahead = block.step(params, tf.neg(from(2, 3)), second, { position: 2, rewindable: true }).state;
  const first = block.step(params, tf.neg(from(2, 1)), second, { position: 2 });
  const expected = block.step(params, from(3, 3), first.state, { position: 3 }).x;
  const again = block.step(params, from(3, 3), block.rewind!(params, ahead, 2), { position: 3 }).x;
  expectClose(again, expected, 1e-5, 'decoded from a rewound state');
  const segments = tokens([
    [0, 0, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0],
  ]);
  const split = block.forward(params, x, { ...context, segments });
  const alone = block.forward(params, tf.slice(x, [0, 2, 0], [1, 4, 16]), context);
  expectClose(tf.slice(split, [0, 2, 0], [1, 4, 16]), alone, 1e-6, 'the second document');
  expectClose(
    tf.slice(split, [1, 0, 0], [1, 6, 16]),
    tf.slice(whole, [1, 0, 0], [1, 6, 16]),
    0,
    'a window of one document',
  );
});

test('sign-momentum moves every parameter by lr, against the gradient', () => {
  const optimizer = resolved.registry.create('optimizer', { name: 'sign-momentum', weightDecay: 0.5 }, {});
  const params = { w: tf.tensor1d([1, -2, 3]) };
  const grads = { w: tf.tensor1d([0.1, -20, 0]) };
  const first = optimizer.update({
    params,
    grads,
    state: optimizer.init(params),
    lr: 0.1,
    step: 1,
    loss: tf.scalar(1),
  });
  expectClose(first.params['w']!, [1 - 0.1 * 1.5, -2 + 0.1 * 2, 3 - 0.1 * 1.5], 1e-6, 'parameters');
  expectClose((first.state as { momentum: { w: tf.Tensor } }).momentum.w, [0.001, -0.2, 0], 1e-6, 'momentum');
});

test('z-loss is cross-entropy and the squared log-partition, over targets only', () => {
  const model = buildModel();
  const objective = resolved.registry.create('objective', resolved.config.objective, sizes);
  const params = model.init(keyedRng(2, 'init'));
  const ids = tokens([
    [1, 2, 3],
    [4, 5, 6],
  ]);
  const labels = [2, 3, -1, 5, -1, 7];
  const host = { labels: Int32Array.from(labels) } as Partial<HostBatch> as HostBatch;
  expect(objective.targets(host)).toEqual({ crossEntropy: 4, logZSquared: 4 });
  const batch = { tokens: ids, labels: tf.tensor3d(labels, [2, 3, 1], 'int32') };
  const { terms } = objective.loss({
    model,
    params,
    batch,
    context,
    progress: { step: 1, totalSteps: 1, tokensPerStep: 1 },
  });
  const logits = model.logits(params, model.hidden(params, batch, context)).arraySync() as number[][][];
  let [crossEntropy, squares] = [0, 0];
  for (const [index, label] of labels.entries()) {
    if (label < 0) continue;
    const row = logits[Math.floor(index / 3)]![index % 3]!;
    const logZ = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
    crossEntropy += logZ - row[label]!;
    squares += logZ ** 2;
  }
  expectClose(terms['crossEntropy']!.sum, [crossEntropy], 1e-4, 'cross-entropy');
  expectClose(terms['logZSquared']!.sum, [squares], 1e-4, 'squares');
  expect(Object.values(terms).map(({ weight }) => weight)).toEqual([1, 0.5]);
});

test('the guard stops a run after its patience, and its state survives a restart', async () => {
  const guard = resolved.plugins.at(-1)!.instance;
  const stepEnd = (step: number, logZSquared: number) =>
    resolved.hooks.series('stepEnd', { step, tokensSeen: 0, metrics: { 'loss/logZSquared': logZSquared } });
  await stepEnd(10, 2);
  await stepEnd(15, 2); // not its turn
  expect(guard.saveState?.()).toEqual({ strikes: 1 });
  await stepEnd(20, 0.5);
  expect(guard.saveState?.()).toEqual({ strikes: 0 });
  guard.loadState?.({ strikes: 1 });
  await expect(stepEnd(30, 2)).rejects.toMatchObject({ code: 'LLMX_DIVERGED', plugin: 'llmx-plugin-z-loss' });
});
