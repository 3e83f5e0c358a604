import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import * as coreModule from '../index.ts';
import {
  evaluateRun,
  inspectStep,
  prepareDataset,
  readMetrics,
  tf,
  train,
  type TrainEvent,
  type TrainOptions,
} from '../index.ts';
import { useBackend } from '../testing/index.ts';
import { testEnvironment } from './test-environment.ts';

// Text with some structure, several documents, fixed.
const documents = Array.from({ length: 24 }, (_, document) =>
  Array.from(
    { length: 60 },
    (_line, line) => `Line ${line} of document ${document} says ${(line * 7 + document) % 11}.`,
  ).join('\n'),
);

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'llmx-train-'));
  documents.forEach((text, index) => writeFileSync(join(folder, `${index}.txt`), text));
  const { host } = environment();
  const instance = new coreModule.Registry([coreModule.builtin]).create('tokenizer', { name: 'bytes' }, {});
  const tokenizer = { name: 'bytes', instance };
  await prepareDataset({
    inputs: [folder],
    out: join(folder, 'data'),
    tokenizer,
    textField: 'text',
    valFraction: 0.2,
    host,
  });
  writeFileSync(join(folder, 'c.json'), JSON.stringify(CONFIG));
});
afterAll(() => rmSync(folder, { recursive: true }));

const CONFIG = {
  data: { train: 'data' },
  model: {
    dModel: 16,
    contextLength: 32,
    vocabSize: 260,
    blocks: [{ block: 'attention', repeat: 2, heads: 2, dropout: 0.1 }],
  },
  optimizer: { name: 'adamw', lr: 0.01 },
  schedule: { name: 'cosine', warmup: 4 },
  train: {
    steps: 24,
    batchSize: 2,
    gradAccumulation: 2,
    evalEvery: 8,
    evalTokens: 256,
    checkpointEvery: 6,
    logEvery: 5,
  },
  backend: 'wasm',
};

const environment = (signal?: AbortSignal) => testEnvironment(folder, coreModule, signal && { signal });

const start = (name: string, options: Partial<TrainOptions> = {}, signal?: AbortSignal) =>
  train({ file: 'c.json', name, ...options }, environment(signal));

const bytes = (name: string, step: number, file: string) =>
  readFileSync(join(folder, 'runs', name, 'checkpoints', `step-${String(step).padStart(8, '0')}`, file));

/** Metrics of a run without what the clock and the machine decide. */
const metrics = (name: string) =>
  readMetrics(join(folder, 'runs', name, 'metrics.jsonl')).map(({ kind, step, metrics: values }) => {
    const { tokensPerSecond: _speed, memoryMiB: _memory, ...rest } = values;
    return { kind, step, ...rest };
  });

function expectSameRun(name: string, reference: string): void {
  for (const file of ['model.safetensors', 'optimizer.safetensors', 'plugins.safetensors'])
    expect(bytes(name, 24, file).equals(bytes(reference, 24, file)), file).toBe(true);
  expect(metrics(name)).toEqual(metrics(reference));
}

describe('a run', () => {
  beforeAll(() => start('whole'));

  test('learns, and its result and metrics say so', async () => {
    const result = await start('again');
    expect(result).toMatchObject({
      steps: 24,
      tokens: 24 * 2 * 2 * 32,
      backend: 'wasm',
      runDir: join(folder, 'runs', 'again'),
      peakMemoryMiB: 2,
    });
    expect(result.tokensPerSecond).toBeGreaterThan(0);
    const trained = metrics('again').filter(({ kind }) => kind === 'train') as unknown as {
      step: number;
      loss: number;
      lr: number;
      gradNorm: number;
    }[];
    expect(trained.map(({ step }) => step)).toEqual([1, 5, 8, 10, 15, 16, 20, 24]);
    expect(trained[0]!.loss).toBeGreaterThan(5);
    expect(result.trainLoss).toBe(trained.at(-1)!.loss);
    expect(result.trainLoss).toBeLessThan(4);
    expect(trained[1]!.lr).toBeCloseTo(0.01 * (0.1 + 0.45 * (1 + Math.cos(Math.PI / 20))), 12);
    const evaluations = metrics('again').filter(({ kind }) => kind === 'eval') as unknown as {
      step: number;
      valLoss: number;
    }[];
    expect(evaluations.map(({ step }) => step)).toEqual([8, 16, 24]);
    expect(result.valLoss).toBe(evaluations.at(-1)!.valLoss);
    expectSameRun('again', 'whole');
  });

  test('keeps the newest checkpoints and the best, and no other', () => {
    const kept = readdirSync(join(folder, 'runs/whole/checkpoints')).toSorted();
    expect(kept).toEqual(['best', 'latest', 'step-00000018', 'step-00000024']);
  });

  test('can be evaluated as a whole, with the numbers of its own evaluation', async () => {
    const result = await evaluateRun({ target: 'whole', maxTokens: 256 }, environment());
    expect(result.loss).toBe(metrics('whole').at(-1)!['valLoss' as never]);
    expect(result.perplexity).toBeCloseTo(Math.exp(result.loss), 10);
    expect(result.bitsPerByte).toBeCloseTo((result.loss * result.tokens) / Math.LN2 / result.bytes, 10);
    const all = await evaluateRun({ target: 'whole', contextLength: 16 }, environment());
    const val = coreModule.openDataset(join(folder, 'data')).info.splits['val']!;
    expect(all.tokens).toBe(Math.floor((val.tokens - 1) / 16) * 16);
    // All but the end-of-text targets stand for one byte each.
    expect(all.tokens - all.bytes).toBeLessThanOrEqual(val.documents);
    expect(all.bytes).toBeGreaterThan(0);
  });

  test('prints its result again when resumed after its end, and goes on when there are more steps', async () => {
    const once = await start('twice');
    expect(await start('twice', { resume: true })).toEqual(once);
    const more = await start('twice', { resume: true, sets: ['train.steps=26'] });
    expect(more.steps).toBe(26);
    expect(metrics('twice').at(-1)!.step).toBe(26);
  });

  test.each([1, 7, 12, 17, 24])(
    'stopped by a signal after step %i and resumed, it is the uninterrupted run',
    async (stop) => {
      const controller = new AbortController();
      const name = `stopped-${stop}`;
      const onEvent = (event: TrainEvent) =>
        void (event.kind === 'step' && event.step === stop && controller.abort('SIGINT'));
      await expect(start(name, { onEvent }, controller.signal)).rejects.toMatchObject({ code: 'LLMX_INTERRUPTED' });
      await start(name, { resume: true });
      expectSameRun(name, 'whole');
    },
  );

  test.each([8, 24])(
    'stopped within the evaluation after step %i and resumed, it is the uninterrupted run',
    async (stop) => {
      const controller = new AbortController();
      const name = `stopped-evaluating-${stop}`;
      const onEvent = (event: TrainEvent) =>
        void (event.kind === 'evaluating' && event.step === stop && controller.abort('SIGTERM'));
      await expect(start(name, { onEvent }, controller.signal)).rejects.toMatchObject({ code: 'LLMX_INTERRUPTED' });
      await start(name, { resume: true });
      expectSameRun(name, 'whole');
    },
  );

  test('accumulation leaves the run the same up to rounding', async () => {
    await start('unsplit', { sets: ['train.batchSize=4', 'train.gradAccumulation=1'] });
    const [a, b] = ['unsplit', 'whole'].map(
      (name) => metrics(name).find(({ step }) => step === 5) as unknown as { loss: number },
    );
    expect(Math.abs(a!.loss - b!.loss)).toBeLessThan(1e-5);
  });

  test('an existing run, other settings, another dataset and too few steps are refused', async () => {
    const message = (promise: Promise<unknown>) =>
      promise.then(
        () => 'no error',
        (error: Error) => error.message.replaceAll(folder, '<folder>'),
      );
    expect(await message(start('whole'))).toMatchInlineSnapshot(`"The run "<folder>/runs/whole" exists already."`);
    expect(
      await message(start('whole', { resume: true, sets: ['optimizer.lr=0.5', 'model.dModel=32'] })),
    ).toMatchInlineSnapshot(
      `"The run was started with other settings: model.dModel was 16 and is now 32; optimizer.lr was 0.01 and is now 0.5."`,
    );
    expect(await message(start('whole', { resume: true, sets: ['train.steps=20'] }))).toMatchInlineSnapshot(
      `"The run has done 24 steps already, more than the 20 of train.steps and train.tokens."`,
    );
    expect(await message(start('new', { sets: ['model.vocabSize=100'] }))).toMatchInlineSnapshot(
      `"The tokenizer has 257 ids, which do not fit model.vocabSize 100."`,
    );
    expect(await message(start('new', { sets: ['precision=bf16'] }))).toMatchInlineSnapshot(
      `"No installed backend computes in bf16."`,
    );
    expect(await message(start('new', { sets: ['model.contextLength=100000'] }))).toMatchInlineSnapshot(
      `"The split "train" holds 40219 tokens; one window of contextLength 100000 needs 100001."`,
    );
    expect(readdirSync(join(folder, 'runs'))).not.toContain('new');
  });
});

/** A plugin file beside the configuration, and the settings that load it. */
function plugin(name: string, body: string): string[] {
  const source = `import { definePlugin, tf } from '@llmx/core';\nexport default definePlugin({ name: '${name}', version: '1.0.0', llmx: '^0.1.0', setup: () => (${body}) });\n`;
  writeFileSync(join(folder, `${name}.ts`), source);
  return [`plugins=["./${name}.ts"]`, 'train.steps=10', 'train.evalEvery=0', 'train.checkpointEvery=0'];
}

describe('plugins in a run', () => {
  test('the batch of a step is what data inspection shows', async () => {
    const seen: { step: number; tokens: number[]; labels: number[] }[] = [];
    Object.assign(globalThis, { llmxSeen: seen });
    const body =
      '{ hooks: { batch: ({ tokens, labels }, { step }) => void globalThis.llmxSeen.push({ step, tokens: [...tokens], labels: [...labels] }) } }';
    await start('watched', { sets: plugin('watch', body) });
    for (const step of [1, 7, 10]) {
      const { sequences } = await inspectStep({ run: 'watched', step }, environment());
      const batches = seen.filter((batch) => batch.step === step);
      expect(batches).toHaveLength(2);
      expect(sequences.flatMap(({ tokens }) => tokens)).toEqual(batches.flatMap(({ tokens }) => tokens));
      expect(sequences.flatMap(({ labels }) => labels)).toEqual(batches.flatMap(({ labels }) => labels));
      expect(sequences.map(({ text }) => text).join('')).toBe(
        sequences
          .map(({ tokens }) => tokens.map((id) => (id < 256 ? String.fromCharCode(id) : '<|endoftext|>')).join(''))
          .join(''),
      );
    }
  });

  test('plugins hear of the backend before a run trains and before a saved model is used', async () => {
    const heard: { backend: string; precision: string }[] = [];
    Object.assign(globalThis, { llmxHeard: heard });
    await start('heard', {
      sets: plugin('listener', '{ hooks: { backendReady: (info) => void globalThis.llmxHeard.push(info) } }'),
    });
    expect(heard).toEqual([{ backend: 'wasm', precision: 'fp32' }]);
    await evaluateRun({ target: 'heard', maxTokens: 64, backend: 'cpu' }, environment());
    expect(heard.slice(1)).toEqual([{ backend: 'cpu', precision: 'fp32' }]);
  });

  test('a hook that throws ends the run with its name and step, and nothing is left of it', async () => {
    const body =
      "{ hooks: { stepEnd: { every: 3, handler: ({ step }) => { if (step === 6) throw new Error('too much'); } } } }";
    await expect(start('thrown', { sets: plugin('thrower', body) })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: [plugin thrower 1.0.0] the stepEnd hook failed at step 6: too much.]`,
    );
    expect(readdirSync(join(folder, 'runs'))).not.toContain('thrown');
  });

  test('state survives a resume, and a checkpoint with state needs its plugin', async () => {
    const body = `(() => { let sum; let count = 0; return {
      saveState: () => ({ sum, count }),
      loadState: (state) => void ({ sum, count } = state),
      hooks: {
        run: () => void (sum = tf.scalar(0)),
        stepEnd: ({ metrics }) => { sum = tf.add(sum, metrics.loss); count += 1; },
        checkpointSaved: () => void globalThis.llmxCounts.push(count),
      },
    }; })()`;
    Object.assign(globalThis, { llmxCounts: [] });
    const sets = plugin('counter', body);
    await start('counted', { sets });
    const controller = new AbortController();
    const onEvent = (event: TrainEvent) =>
      void (event.kind === 'step' && event.step === 4 && controller.abort('SIGINT'));
    await expect(start('counted-twice', { sets, onEvent }, controller.signal)).rejects.toMatchObject({
      code: 'LLMX_INTERRUPTED',
    });
    await start('counted-twice', { sets, resume: true });
    expect((globalThis as unknown as { llmxCounts: number[] }).llmxCounts).toEqual([10, 4, 10]);
    for (const name of ['counted', 'counted-twice'])
      expect(bytes(name, 10, 'plugins.safetensors').equals(bytes('counted', 10, 'plugins.safetensors'))).toBe(true);
    const without = start('counted', {
      sets: ['train.steps=12', 'train.evalEvery=0'],
      resume: true,
      allowChanges: true,
    });
    await expect(without).rejects.toMatchObject({ code: 'LLMX_PLUGIN_MISSING' });
  });

  test('nothing is read back from the device but at logged steps', async () => {
    const reads: number[] = [];
    Object.assign(globalThis, { llmxStep: (step: number) => reads.push(step) });
    const sets = plugin('counted-reads', '{ hooks: { batch: (_batch, { step }) => void globalThis.llmxStep(step) } }');
    const log: string[] = [];
    await useBackend('wasm');
    // Every tensor.data() and dataSync() goes through the engine: a wrapper counts and passes on.
    const engine = tf.engine() as unknown as Record<'read' | 'readSync', (id: object) => unknown>;
    const originals = { read: engine.read, readSync: engine.readSync };
    for (const name of ['read', 'readSync'] as const)
      engine[name] = (id) => {
        log.push(`${reads.at(-1)}`);
        return originals[name].call(engine, id);
      };
    try {
      await start('unread', { sets: [...sets, 'train.logEvery=5', 'train.guard=false'] });
    } finally {
      Object.assign(engine, originals);
    }
    expect([...new Set(log)]).toEqual(['1', '2', '5', '10']);
  });

  test('the example plugins train together', async () => {
    const examples = fileURLToPath(new URL('../plugin/examples/', import.meta.url));
    const files = ['retention', 'sign-momentum', 'z-loss'].map((name) => join(examples, `${name}.ts`));
    const sets = [
      `plugins=${JSON.stringify(files)}`,
      'model.blocks=[{block: retention, repeat: 1}, {block: attention, repeat: 1, heads: 2}]',
      'objective=z-loss',
      'optimizer={name: sign-momentum, lr: 0.003}',
      'train.steps=30',
      'train.checkpointEvery=20',
    ];
    const result = await start('examples', { sets });
    expect(result.trainLoss).toBeLessThan(4.5);
    const logged = metrics('examples').findLast(({ kind }) => kind === 'train')!;
    expect(Object.keys(logged)).toContain('loss/logZSquared');
  });
});
