import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import * as core from '@llmx/core';
import { evaluateRun, LlmxError, readManifest, readMetrics, readSafetensors, train, type TrainEvent } from '@llmx/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import multiToken from '../packages/plugin-mtp/src/index.ts';
import scheduleFree from '../packages/plugin-schedulefree/src/index.ts';
import { environment, prepareTexts } from './support/in-process.ts';

// Documents of which many are shorter than three tokens, so that heads often have no targets.
const TEXTS = Array.from({ length: 60 }, (_, index) => (index % 3 === 0 ? `Text ${index} of sixty. `.repeat(8) : 'a'));

/** An architecture with other parameters, and a tokenizer that says it is not the built-in one. */
const strange = core.definePlugin({
  name: 'strange',
  version: '1.0.0',
  llmx: '*',
  components: [
    core.defineArchitecture({
      name: 'strange',
      summary: 'For tests.',
      config: core.z.strictObject({}),
      build: (_config, { vocabSize, contextLength, create }) => {
        const context = { vocabSize, contextLength };
        const decoder = create('architecture', { name: 'decoder', dModel: 8 }, context);
        return { ...decoder, dModel: 8, vocabSize, init: () => ({ strange: core.tf.zeros([vocabSize, 8]) }) };
      },
    }),
    core.defineTokenizer({
      name: 'strange',
      summary: 'For tests.',
      config: core.z.strictObject({}),
      build: (_config, { create }) => {
        const bytes = create('tokenizer', { name: 'bytes' }, {});
        return {
          ...bytes,
          hash: 'f'.repeat(64),
          encode: (text) => bytes.encode(text),
          decode: (ids) => bytes.decode(ids),
        };
      },
    }),
  ],
});

const STEPS = 6;
const CONFIG = {
  data: { train: 'data', packing: 'documents' },
  model: { dModel: 8, contextLength: 16, vocabSize: 260, blocks: [{ block: 'attention', repeat: 2, heads: 2 }] },
  optimizer: { name: 'adamw', lr: 0.01 },
  train: {
    steps: STEPS,
    batchSize: 2,
    gradAccumulation: 2,
    evalEvery: 3,
    evalTokens: 64,
    checkpointEvery: 2,
    logEvery: 1,
  },
  backend: 'wasm',
};
const HEADS = { name: 'multi-token', tokens: 3, head: { name: 'attention', heads: 2 } };
const TRUNK = ['embedding.*', 'blocks.*', 'norm.*'];

let folder: string;
const warnings: string[] = [];
beforeAll(async () => {
  folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-initial-')));
  await prepareTexts(surroundings(), TEXTS);
  await prepareTexts(surroundings(), TEXTS, { out: 'other', tokenizer: 'strange' });
  fs.writeFileSync(path.join(folder, 'c.json'), JSON.stringify(CONFIG));
  await run('base');
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const surroundings = (signal?: AbortSignal) =>
  environment(folder, [multiToken, scheduleFree, strange], {
    ...(signal && { signal }),
    warn: (message) => void warnings.push(message),
  });

interface Options {
  readonly resume?: boolean;
  readonly allowChanges?: boolean;
  readonly onEvent?: (event: TrainEvent) => void;
  readonly signal?: AbortSignal;
}

const run = (name: string, settings: object = {}, { signal, ...options }: Options = {}) =>
  train(
    {
      file: 'c.json',
      name,
      sets: Object.entries(settings).map(([key, value]) => `${key}=${JSON.stringify(value)}`),
      ...options,
    },
    surroundings(signal),
  );

const runPath = (name: string) => path.join(folder, 'runs', name);
const fileOf = (name: string, file: 'model' | 'optimizer', step = STEPS) =>
  path.join(runPath(name), 'checkpoints', `step-${String(step).padStart(8, '0')}`, `${file}.safetensors`);
const weightsOf = (name: string, step = STEPS) => readSafetensors(fileOf(name, 'model', step)).tensors;
const isTrunk = (parameter: string) => !parameter.startsWith('objective.');

/** Parameters of two checkpoints that have other bits. */
function changed(before: core.HostTensors, after: core.HostTensors): string[] {
  const bytes = ({ data }: { data: NodeJS.TypedArray }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return [...after].flatMap(([name, tensor]) => {
    const other = before.get(name);
    return other !== undefined && bytes(other).equals(bytes(tensor)) ? [] : [name];
  });
}

/** Metrics of a run without what the clock decides. */
const metricsOf = (name: string) =>
  readMetrics(path.join(runPath(name), 'metrics.jsonl')).map(({ kind, step, metrics }) => {
    const { tokensPerSecond: _, ...values } = metrics;
    return { kind, step, values };
  });

/** The loss of a step whose second head counts less and less over half of the run, and the third always half. */
function expectWeighted({ step, values }: { step: number; values: core.Metrics }): void {
  const [first, second, third] = [1, 2, 3].map((head) => values[`multiToken/loss/${head}`]!);
  const weight = Math.max(0, 1 - (step - 1) / (STEPS / 2));
  const loss = (first! + weight * second! + 0.5 * third!) / values['multiToken/targets/1']!;
  expect(Math.abs(values['loss']! - loss) / loss).toBeLessThan(1e-5);
}

/** Code, message and hint of what a promise is rejected with. */
const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'nothing was thrown',
    (error: unknown) => {
      if (!LlmxError.is(error)) throw error;
      return [error.code, error.message, error.hint].join('\n').replaceAll(folder, '<folder>');
    },
  );

const OPTIMIZERS = [
  { name: 'adamw', lr: 0.01, decay: 'all' },
  { name: 'sgd', lr: 0.05, momentum: 0.9, weightDecay: 0.1, decay: 'all' },
  { name: 'lion', lr: 0.001 },
  { name: 'adamw-schedulefree', lr: 0.01, weightDecay: 0.1, decay: 'all' },
  { name: 'adamc-schedulefree-plus', weightDecay: 0.1 },
];

describe.each(OPTIMIZERS)('heads on a trained model whose trunk is frozen, with $name', (optimizer) => {
  const settings = { objective: HEADS, optimizer, 'train.initFrom': 'base', 'train.freeze': TRUNK };
  const name = `frozen-${optimizer.name}`;
  beforeAll(() => run(name, settings));

  test('leave every bit of it as it was, and no state of the optimizer for it', () => {
    const before = weightsOf('base');
    const after = weightsOf(name);
    const heads = [...after.keys()].filter((parameter) => !isTrunk(parameter));
    expect([...after.keys()].filter(isTrunk).toSorted()).toEqual([...before.keys()].toSorted());
    expect(changed(before, after)).toEqual(heads);
    // Keys' biases have no effect, so they may stay at zero.
    const moved = changed(weightsOf(name, 4), after);
    expect(moved.length).toBeGreaterThan(heads.length / 2);
    const kept = [...readSafetensors(fileOf(name, 'optimizer')).tensors.keys()].filter((key) => key.includes('.'));
    expect(kept.filter((key) => !key.includes('/objective.'))).toEqual([]);
  });

  test('leave its evaluation as it was', async () => {
    const [one, other] = [
      await evaluateRun({ target: 'base', maxTokens: 64 }, surroundings()),
      await evaluateRun({ target: name, maxTokens: 64 }, surroundings()),
    ];
    expect(other.loss).toBe(one.loss);
  });
});

describe('stopped and resumed without its source', () => {
  test.each([
    ['frozen', OPTIMIZERS[0]!, TRUNK],
    ['free', OPTIMIZERS[0]!, []],
    ['frozen', OPTIMIZERS[3]!, TRUNK],
    ['half', OPTIMIZERS[3]!, ['embedding.*', 'blocks.0.*']],
  ])('a run (%s) is the uninterrupted one, with %o', async (variant, optimizer, freeze) => {
    const [name, source] = [`${variant}-${optimizer.name}-whole`, `source-${variant}-${optimizer.name}`];
    // Weights change over training, too.
    const objective = { ...HEADS, weights: [1, { from: 1, to: 0, over: '50%' }, 0.5] };
    const settings = { objective, optimizer, 'train.freeze': freeze, 'train.initFrom': `./runs/${source}` };
    fs.cpSync(runPath('base'), runPath(source), { recursive: true });
    await run(name, settings);
    expect(changed(weightsOf('base'), weightsOf(name)).some(isTrunk)).toBe(variant !== 'frozen');
    const controller = new AbortController();
    const onEvent = (event: TrainEvent) => {
      if (event.kind === 'step' && event.step === 3) controller.abort('SIGINT');
    };
    const parted = run(`${name}-parted`, settings, { onEvent, signal: controller.signal });
    await expect(parted).rejects.toMatchObject({ code: 'LLMX_INTERRUPTED' });
    fs.rmSync(runPath(source), { recursive: true });
    await run(`${name}-parted`, settings, { resume: true });
    for (const file of ['model', 'optimizer'] as const)
      expect(fs.readFileSync(fileOf(`${name}-parted`, file)).equals(fs.readFileSync(fileOf(name, file))), file).toBe(
        true,
      );
    expect(metricsOf(`${name}-parted`)).toEqual(metricsOf(name));
    for (const record of metricsOf(name).filter(({ kind }) => kind === 'train')) expectWeighted(record);
  });
});

describe('starting from another run', () => {
  test('takes what it has, says so, and needs it no more', async () => {
    const events: TrainEvent[] = [];
    const settings = { objective: { ...HEADS, head: 'linear' }, 'train.initFrom': 'base' };
    const stop = new AbortController();
    const onEvent = (event: TrainEvent) => {
      events.push(event);
      if (event.kind === 'saved') stop.abort('SIGINT'); // before the first step
    };
    await expect(run('told', settings, { onEvent, signal: stop.signal })).rejects.toMatchObject({
      code: 'LLMX_INTERRUPTED',
    });
    const base = weightsOf('base');
    const values = [...base.values()].reduce((sum, { data }) => sum + data.length, 0);
    expect(events[0]).toMatchObject({
      kind: 'started',
      initialised: {
        checkpoint: path.dirname(fileOf('base', 'model')),
        step: STEPS,
        taken: { tensors: base.size, values },
        fresh: { tensors: 2, values: 2 * 8 * 8 },
        leftOut: { tensors: 0, values: 0 },
      },
    });
    expect(events[1]).toMatchObject({ kind: 'saved', step: 0 });
    expect(changed(base, weightsOf('told', 0)).filter(isTrunk)).toEqual([]);
    const { initFrom } = readManifest(runPath('told'));
    const { files } = JSON.parse(
      fs.readFileSync(path.join(path.dirname(fileOf('base', 'model')), 'state.json'), 'utf8'),
    );
    expect(initFrom).toEqual({
      checkpoint: path.dirname(fileOf('base', 'model')),
      step: STEPS,
      sha256: files['model.safetensors'].sha256,
    });
  });

  test('takes the weights that evaluation uses, not the iterate that was trained', async () => {
    await run('averaged', { optimizer: OPTIMIZERS[3]!, 'train.freeze': ['norm.*'] });
    await run('from-average', { 'train.initFrom': 'averaged', 'train.steps': 1 });
    expect(changed(weightsOf('averaged'), weightsOf('from-average', 0))).toEqual([]);
  });

  test('leaves out what the objective there had and here has not; more blocks start as usual', async () => {
    await run('headed', { objective: { ...HEADS, head: 'linear' }, 'train.steps': 1 });
    const events: TrainEvent[] = [];
    const onEvent = (event: TrainEvent) => void events.push(event);
    const settings = { 'train.initFrom': 'headed', 'train.steps': 1, 'model.blocks.0.repeat': 3 };
    await run('headless', settings, { onEvent });
    expect(events[0]).toMatchObject({
      initialised: { leftOut: { tensors: 2, values: 128 }, fresh: { tensors: expect.any(Number) } },
    });
    expect(
      changed(weightsOf('headed', 1), weightsOf('headless', 0)).every((name) => name.startsWith('blocks.2.')),
    ).toBe(true);
  });

  test('killed before its first checkpoint, it starts again from the same weights or not at all', async () => {
    fs.cpSync(runPath('base'), runPath('changing'), { recursive: true });
    const settings = { 'train.initFrom': 'changing', 'train.steps': 2 };
    await run('killed', settings);
    const final = fs.readFileSync(fileOf('killed', 'model', 2));
    const begin = () => {
      fs.rmSync(path.join(runPath('killed'), 'checkpoints'), { recursive: true });
      const { result: _, ...manifest } = readManifest(runPath('killed'));
      fs.writeFileSync(path.join(runPath('killed'), 'run.json'), JSON.stringify(manifest));
    };
    begin();
    await run('killed', settings, { resume: true });
    expect(fs.readFileSync(fileOf('killed', 'model', 2)).equals(final)).toBe(true);
    begin();
    await run('changing', { 'train.steps': STEPS + 1 }, { resume: true });
    expect(await refusal(run('killed', settings, { resume: true }))).toMatchInlineSnapshot(`
      "LLMX_RESUME_MISMATCH
      The run was started from the weights of "<folder>/runs/changing/checkpoints/step-00000006", step 6, and "<folder>/runs/changing/checkpoints/step-00000007" has others.
      Start a new run under another --name, or continue anyway with --allow-changes."
    `);
  });

  test('that does not fit is refused, and nothing is left behind', async () => {
    const from = (settings: object) => refusal(run('unfit', { 'train.initFrom': 'base', ...settings }));
    expect(await from({ 'train.initFrom': 'bsae' })).toMatchInlineSnapshot(`
      "LLMX_RUN_MISSING
      There is no run or checkpoint "bsae".
      Give its path, or the name of a run in "<folder>/runs". Did you mean "base"?"
    `);
    expect(await from({ 'model.dModel': 16 })).toMatchInlineSnapshot(`
      "LLMX_PARAM_MISMATCH
      The weights in "<folder>/runs/base/checkpoints/step-00000006" do not fit the model: "embedding.tokens" is 260 x 8 there and 260 x 16 in the model, and 35 more.
      Give model and objective the options that run had. Blocks and heads that it did not have are fine: they start as usual."
    `);
    expect(await from({ 'model.blocks.0.repeat': 1 })).toMatchInlineSnapshot(`
      "LLMX_PARAM_MISMATCH
      The weights in "<folder>/runs/base/checkpoints/step-00000006" do not fit the model: "blocks.1.attention.norm.weight" (8) is not in the model, and 15 more.
      Give model and objective the options that run had. Blocks and heads that it did not have are fine: they start as usual."
    `);
    expect(await from({ model: { architecture: 'strange', contextLength: 16 } })).toMatchInlineSnapshot(`
      "LLMX_PARAM_MISMATCH
      None of the 36 parameters in "<folder>/runs/base/checkpoints/step-00000006" is one of the model that is to start from them.
      Give train.initFrom a run of the same architecture."
    `);
    const other = await from({ 'data.train': 'other' });
    expect(other.replaceAll(/\([0-9a-f]{12}\)/g, '(<hash>)')).toMatchInlineSnapshot(`
      "LLMX_TOKENIZER_MISMATCH
      "<folder>/runs/base/checkpoints/step-00000006" was trained with the tokenizer "bytes" (<hash>), the dataset "<folder>/other" was made with "strange" (<hash>).
      Prepare the data with the tokenizer of the run that train.initFrom names."
    `);
    expect(fs.readdirSync(path.join(folder, 'runs'))).not.toContain('unfit');
  });
});

describe('train.freeze', () => {
  test('that means nothing, or everything, is refused', async () => {
    const freezing = (freeze: unknown) => refusal(run('unfit', { 'train.freeze': freeze }));
    expect(await freezing(['blocks.*', 'nrom.*'])).toMatchInlineSnapshot(`
      "LLMX_CONFIG_INVALID
      The pattern "nrom.*" of train.freeze matches no parameter.
      Did you mean "norm.*"?"
    `);
    expect(await freezing(['*'])).toMatchInlineSnapshot(`
      "LLMX_CONFIG_INVALID
      train.freeze matches all 36 parameters.
      Leave something to train, e.g. "objective.*", the parameters of the objective."
    `);
    expect(fs.readdirSync(path.join(folder, 'runs'))).not.toContain('unfit');
  });

  test('may change on resume only where changes are allowed; the optimizer then starts anew', async () => {
    const settings = { optimizer: OPTIMIZERS[3]!, 'train.freeze': ['blocks.0.*'], 'train.steps': 4 };
    await run('thawed', settings);
    const more = { ...settings, 'train.freeze': [], 'train.steps': 6 };
    expect(await refusal(run('thawed', more, { resume: true }))).toMatchInlineSnapshot(`
      "LLMX_RESUME_MISMATCH
      The run was started with other settings: train.freeze.0 was "blocks.0.*" and is now not set.
      Take these settings back, start a new run under another --name, or continue anyway with --allow-changes."
    `);
    await run('thawed', more, { resume: true, allowChanges: true });
    expect(warnings.at(-1)).toMatchInlineSnapshot(
      `"train.freeze has changed: the optimizer starts anew, from the evaluated weights."`,
    );
    expect(changed(weightsOf('thawed', 4), weightsOf('thawed', 6))).toEqual(
      expect.arrayContaining(
        [...weightsOf('base').keys()].filter((name) => name.startsWith('blocks.0.') && name.endsWith('weight')),
      ),
    );
  });
});
