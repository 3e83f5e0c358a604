import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { readSafetensors } from '../packages/core/src/checkpoint/safetensors.ts';

import { checkpoint, gives, refusal, STEPS, useTemplate, workspace } from './support/cli-workspace.ts';
import { llmx } from './support/llmx.ts';

useTemplate();

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PACKAGE = '@llmx/plugin-mtp';

/** A folder with data and a configuration with an objective; the plugin is installed or not. */
function folderWith(settings: string, { installed = true } = {}): string {
  const folder = workspace('data');
  const modules = join(folder, 'node_modules/@llmx');
  mkdirSync(modules, { recursive: true });
  if (installed) symlinkSync(join(ROOT, 'packages/plugin-mtp'), join(modules, 'plugin-mtp'));
  writeFileSync(
    join(folder, 'c.yaml'),
    `data: { train: data, packing: documents }
model: { dModel: 8, contextLength: 16, blocks: [{ block: attention, repeat: 1, heads: 2 }] }
train: { steps: ${STEPS}, batchSize: 2, gradAccumulation: 2, logEvery: 4, evalEvery: 4, checkpointEvery: 4 }
backend: cpu
${settings}`,
  );
  return folder;
}

test('without the plugin, the answer is the line that installs it', async () => {
  const asked = folderWith('objective: multi-token\n', { installed: false });
  expect(await refusal(asked, ['train', 'c.yaml'])).toMatchInlineSnapshot(`
    "LLMX_COMPONENT_UNKNOWN
    There is no objective "multi-token".
    Run "npm install @llmx/plugin-mtp" and add @llmx/plugin-mtp to plugins."
  `);
});

test('more tokens ahead than the window has are refused before anything runs', async () => {
  const folder = folderWith(`plugins: ['${PACKAGE}']\nobjective: { name: multi-token, tokens: 17 }\n`);
  expect(await refusal(folder, ['train', 'c.yaml'])).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    objective.tokens 17 is larger than the window of 16 tokens (model.contextLength), so the last heads would have no targets.
    Set objective.tokens to at most 16, or raise model.contextLength."
  `);
});

test('heads are trained and stored; metrics and evaluation tell them from the next-token head', async () => {
  const head = '{ name: attention, heads: 2 }';
  const folder = folderWith(`plugins: ['${PACKAGE}']\nobjective: { name: multi-token, tokens: 3, head: ${head} }\n`);
  const run = await llmx(folder, 'train', 'c.yaml', '--name', 'a', '--json');
  const { valLoss } = JSON.parse(run.stdout) as { valLoss: number };
  const lines = readFileSync(join(folder, 'runs/a/metrics.jsonl'), 'utf8').trim().split('\n');
  const records = lines.map((line) => JSON.parse(line) as Record<string, number>);
  const trained = records.filter((record) => 'gradNorm' in record);
  expect(trained.length).toBeGreaterThan(0);
  for (const record of trained) {
    const heads = [1, 2, 3].map((index) => record[`loss/head${index}`]!);
    // All divided by the next tokens, of which there are more than of those further ahead.
    expect(record['loss']!).toBeGreaterThan(heads[0]!);
    expect(record['loss']!).toBeLessThan(heads[0]! + heads[1]! + heads[2]!);
    expect(Object.keys(record)).toEqual(
      expect.arrayContaining(['accuracy', 'acceptance/head2', 'acceptance/head3', 'acceptance/tokensPerPass']),
    );
    expect(Object.keys(record).filter((key) => key.startsWith('multiToken'))).toEqual([]);
  }
  const { tensors } = readSafetensors(join(checkpoint(folder, 'a', STEPS), 'model.safetensors'));
  const owners = [...tensors.keys()].filter((path) => path.startsWith('objective.')).map((path) => path.slice(0, 17));
  expect([...new Set(owners)].toSorted()).toEqual(['objective.heads.2', 'objective.heads.3']);
  const evaluated = await gives(folder, 'eval', 'a', '--max-tokens', '65536');
  expect(evaluated['loss']).toBe(valLoss);
  await expectDecoding(folder);
});

/** Speculative decoding with the three tokens of the run `a`. */
async function expectDecoding(folder: string): Promise<void> {
  const greedy = ['generate', 'a', '--prompt', 'The sea', '--max-tokens', '30', '--temperature', '0'];
  const plain = await gives(folder, ...greedy);
  const { text, tokens, speculative } = await gives(folder, ...greedy, '--speculative');
  expect({ text, tokens }).toEqual({ text: plain['text'], tokens: 30 });
  const report = speculative as { passes: number; tokensPerPass: number; proposed: number[]; accepted: number[] };
  expect(report).toMatchObject({ draftTokens: 2, acceptance: [expect.any(Number), expect.any(Number)] });
  expect(report.passes * report.tokensPerPass).toBeCloseTo(30);
  expect(report.passes + report.accepted[0]! + report.accepted[1]!).toBe(30);
  const one = await llmx(folder, ...greedy, '--speculative', '--draft-tokens', '1');
  expect(one.stdout).toBe(`The sea${String(text)}\n`);
  expect(one.stderr).toMatch(
    /^\d+ passes {2}\d\.\d\d tokens a pass {2}\S+ tokens\/s\naccepted, head by head: \d+ %\n$/,
  );
  expect(await refusal(folder, [...greedy, '--speculative', '--draft-tokens', '3'])).toMatchInlineSnapshot(`
    "LLMX_DRAFT_MISSING
    3 draft tokens were asked for, but the model has 2 heads.
    Ask for at most 2, or train with more heads."
  `);
}

test('a run whose objective has no heads cannot decode speculatively', async () => {
  const folder = workspace();
  expect(await refusal(folder, ['generate', 'done', '--speculative'])).toMatchInlineSnapshot(`
    "LLMX_DRAFT_MISSING
    The checkpoint "<folder>/runs/done/checkpoints/step-00000008" was trained with the objective next-token, which has no heads that propose tokens.
    Generate without --speculative, or train with an objective that \`llmx components --kind draft\` lists."
  `);
});
