import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { readSafetensors } from '../packages/core/src/checkpoint/safetensors.ts';

import { checkpoint, gives, refusal, STEPS, useTemplate, workspace } from './support/cli-workspace.ts';
import { llmx } from './support/llmx.ts';

useTemplate();

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PACKAGE = '@llmx/plugin-schedulefree';

/** A folder with data and a configuration that asks for a schedule-free optimizer; the plugin is installed or not. */
function folderWith(settings: string, { installed = true } = {}): string {
  const folder = workspace('data');
  const modules = join(folder, 'node_modules/@llmx');
  mkdirSync(modules, { recursive: true });
  if (installed) symlinkSync(join(ROOT, 'packages/plugin-schedulefree'), join(modules, 'plugin-schedulefree'));
  writeFileSync(
    join(folder, 'c.yaml'),
    `data: { train: data }
model: { dModel: 8, contextLength: 16, blocks: [{ block: attention, repeat: 1, heads: 2 }] }
train: { steps: ${STEPS}, batchSize: 2, logEvery: 4, evalEvery: 4, checkpointEvery: 4 }
backend: cpu
${settings}`,
  );
  return folder;
}

test('without the plugin, the answer is the line that installs it', async () => {
  const asked = folderWith('optimizer: adamw-schedulefree\n', { installed: false });
  expect(await refusal(asked, ['train', 'c.yaml'])).toMatchInlineSnapshot(`
    "LLMX_COMPONENT_UNKNOWN
    There is no optimizer "adamw-schedulefree".
    Run "npm install @llmx/plugin-schedulefree" and add @llmx/plugin-schedulefree to plugins."
  `);
  const listed = folderWith(`plugins: ['${PACKAGE}']\n`, { installed: false });
  expect((await refusal(listed, ['train', 'c.yaml'])).replace(ROOT, '<llmx>/')).toMatchInlineSnapshot(`
    "LLMX_PLUGIN_MISSING
    [plugin @llmx/plugin-schedulefree] is not installed: looked from <folder> and <llmx>/packages/cli/.
    Run "npm install @llmx/plugin-schedulefree" in the folder of the configuration."
  `);
});

test('checkpoints, evaluation and generation use the average; a cosine schedule is warned of', async () => {
  const folder = folderWith(
    `plugins: ['${PACKAGE}']\noptimizer: { name: adamw-schedulefree, lr: 0.05 }\nschedule: cosine\n`,
  );
  const run = await llmx(folder, 'train', 'c.yaml', '--name', 'a', '--json');
  expect(run.stderr).toContain('use schedule: constant');
  const { valLoss } = JSON.parse(run.stdout) as { valLoss: number };
  const at = checkpoint(folder, 'a', STEPS);
  const weights = readSafetensors(join(at, 'model.safetensors')).tensors;
  const { tensors } = readSafetensors(join(at, 'optimizer.safetensors'));
  let moved = 0;
  for (const [path, { data }] of weights) {
    const [y, z] = ['iterate', 'state/z'].map((place) => tensors.get(`${place}/${path}`)!.data as Float32Array);
    // y = 0.9 x + 0.1 z, with x what is saved to be used.
    (data as Float32Array).forEach((x, index) => {
      expect(Math.abs(0.9 * x + 0.1 * z![index]! - y![index]!)).toBeLessThan(1e-5);
      moved = Math.max(moved, Math.abs(x - y![index]!));
    });
  }
  expect(moved).toBeGreaterThan(1e-3);
  const evaluated = await gives(folder, 'eval', 'a', '--max-tokens', '65536');
  expect(evaluated['loss']).toBe(valLoss);
  // What is generated does not depend on the iterate.
  const generate = ['generate', 'a', '--prompt', 'a', '--max-tokens', '20'];
  const text = await gives(folder, ...generate);
  rmSync(join(at, 'optimizer.safetensors'));
  expect((await refusal(folder, generate)).split('\n')[0]).toBe('LLMX_CHECKPOINT_DAMAGED');
  expect(text['tokens']).toBeGreaterThan(0);
});
