// xLSTM models through the command line: exact resume, decoding without end, evaluation beyond the trained length, mistakes.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { nativeUnavailable } from '@llmx/backend-native';

import { builtin, generate, keyedRng, Registry, tf } from '../packages/core/src/index.ts';
import { useBackend } from '../packages/core/src/testing/backends.ts';
import xlstm from '../packages/plugin-xlstm/src/index.ts';

import { checkpoint, gives, refusal, until, useTemplate, workspace } from './support/cli-workspace.ts';
import { llmx, start } from './support/llmx.ts';

useTemplate();

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Three mLSTM blocks to one sLSTM block. */
const MODEL = 'architecture: xlstm, dModel: 16, depth: 4, ratio: [3, 1], heads: 2, contextLength: 16';
const STEPS = 6;

/** Holds training after step 5, where there is a checkpoint of step 3 to go back to, until there is a file `go`. */
const HOLD = `
import fs from 'node:fs';
import { definePlugin } from '@llmx/core';

async function handler({ step }) {
  if (step !== 5) return;
  fs.writeFileSync('held', '');
  while (!fs.existsSync('go')) await new Promise((resolve) => setTimeout(resolve, 5));
}

export default definePlugin({ name: 'hold', version: '1.0.0', llmx: '>=0.1.0', setup: () => ({ hooks: { stepEnd: handler } }) });
`;

const missing = nativeUnavailable();
const FASTEST = missing === undefined ? 'native' : 'wasm';

/** A folder with data, the plugin, and a configuration with what a resumed run could get wrong. */
function folderWith(model: string, backend = FASTEST): string {
  const folder = workspace('data');
  const modules = join(folder, 'node_modules/@llmx');
  mkdirSync(modules, { recursive: true });
  symlinkSync(join(ROOT, 'packages/plugin-xlstm'), join(modules, 'plugin-xlstm'));
  writeFileSync(join(folder, 'hold.ts'), HOLD);
  writeFileSync(
    join(folder, 'c.yaml'),
    `plugins: ['@llmx/plugin-xlstm', ./hold.ts]
data: { train: data, packing: documents }
model: { ${model} }
optimizer: { name: adamw, lr: 0.01 }
train: { steps: ${STEPS}, batchSize: 1, gradAccumulation: 2, logEvery: 1, evalEvery: 3, evalTokens: 128, checkpointEvery: 3 }
backend: ${backend}
`,
  );
  return folder;
}

/** What must be the same bits: weights, optimizer state, and metrics but for speed and memory. */
function outcome(folder: string, run: string): Record<string, string> {
  const files = ['model', 'optimizer', 'plugins'].map((group) => `${group}.safetensors`);
  const hash = (file: string) =>
    createHash('sha256')
      .update(readFileSync(join(checkpoint(folder, run, STEPS), file)))
      .digest('hex');
  const lines = readFileSync(join(folder, 'runs', run, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n');
  const metrics = lines.map((line) => {
    const { tokensPerSecond: _speed, memoryMiB: _memory, ...rest } = JSON.parse(line) as Record<string, number>;
    return JSON.stringify(rest);
  });
  return { ...Object.fromEntries(files.map((file) => [file, hash(file)])), metrics: metrics.join('\n') };
}

test.for(['native', 'wasm'])(
  'killed between two checkpoints and resumed, an xLSTM ends with the bits of the whole run on %s',
  { timeout: 300_000 },
  async (backend, { skip }) => {
    skip(backend === 'native' && missing !== undefined, `no C++ engine: ${missing}`);
    const folder = folderWith(`${MODEL}, chunk: 5, dropout: 0.2`, backend);
    const { child, ended } = start(folder, ['train', 'c.yaml', '--name', 'killed']);
    // Checkpoints are written while training goes on.
    await until(() => existsSync(join(folder, 'held')) && existsSync(checkpoint(folder, 'killed', 3)));
    child.kill('SIGKILL');
    await ended;
    writeFileSync(join(folder, 'go'), '');
    for (const args of [['whole'], ['killed', '--resume']]) {
      const { status, stderr } = await llmx(folder, 'train', 'c.yaml', '--name', ...args);
      expect(status, stderr).toBe(0);
    }
    expect(readFileSync(join(folder, 'runs/killed/metrics.jsonl'), 'utf8')).toContain('"step":4,');
    expect(outcome(folder, 'killed')).toEqual(outcome(folder, 'whole'));
  },
);

test('text and evaluated windows may be longer than what was trained on, which may be shorter than a chunk', async () => {
  const folder = folderWith(MODEL); // chunks of 64, windows of 16
  writeFileSync(join(folder, 'go'), '');
  const { valLoss } = await gives(folder, 'train', 'c.yaml', '--name', 'a');
  const evaluated = (...flags: string[]) => gives(folder, 'eval', 'a', '--max-tokens', '128', ...flags);
  expect((await evaluated())['loss']).toBe(valLoss);
  const long = await evaluated('--context-length', '128');
  expect(long['contextLength']).toBe(128);
  expect(long['loss']).toBeGreaterThan(0);
  expect(long['loss']).toBeLessThan(Math.log(257) + 1);
  const prompt = 'The sea is wide and far. '.repeat(4);
  const text = await gives(folder, 'generate', 'a', '--prompt', prompt, '--max-tokens', '60');
  expect(text['tokens']).toBe(60);
});

test('decoding takes the same memory after any prompt and any number of tokens', async () => {
  await useBackend('wasm');
  const registry = new Registry([builtin, xlstm]);
  const context = { vocabSize: 257, contextLength: 16 };
  const options = { name: 'xlstm', dModel: 16, depth: 2, ratio: [1, 1], heads: 2 };
  const model = registry.create('architecture', options, context);
  const tokenizer = registry.create('tokenizer', { name: 'bytes' }, {});
  const params = model.init(keyedRng(1, 'init'));
  const used = new Set<number>();
  for (const length of [1, 7, 70]) {
    const prompt = Array.from({ length }, (_, index) => index);
    const drawn = generate(
      { model, params, tokenizer },
      prompt,
      { maxTokens: 40, seed: 1, temperature: 1, topK: 0, topP: 1 },
      new AbortController().signal,
    );
    for await (const id of drawn) {
      expect(id).toBeLessThan(256);
      used.add(tf.memory().numBytes);
    }
  }
  expect(used.size).toBe(1);
  tf.dispose(Object.values(params));
});

test('sizes that do not fit are refused before anything runs', async () => {
  const ratio = folderWith(MODEL.replace('depth: 4', 'depth: 6'));
  expect(await refusal(ratio, ['train', 'c.yaml'])).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    ratio 3:1 repeats every 4 blocks, which does not fit depth 6.
    Set depth to a multiple of 4 such as 8, choose another ratio, or name the sLSTM blocks with slstmAt."
  `);
  const heads = folderWith(MODEL.replace('heads: 2', 'heads: 3'));
  expect(await refusal(heads, ['train', 'c.yaml'])).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    The inner width 64 is not a multiple of heads 3.
    Set heads to 2, or change dModel."
  `);
  const twice = folderWith(MODEL.replace('ratio: [3, 1]', 'slstmAt: [2, 2]'));
  expect(await refusal(twice, ['train', 'c.yaml'])).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    slstmAt names block 2 twice.
    Name each sLSTM block once, counting from 0."
  `);
});
