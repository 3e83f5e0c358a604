import fs from 'node:fs';
import path from 'node:path';

import { describe, test } from 'vitest';

import {
  checkpoint,
  CONFIG,
  gives,
  onlyObject,
  prints,
  refusal,
  STEPS,
  top,
  useTemplate,
  workspace,
} from './support/cli-workspace.ts';
import { llmx, start } from './support/llmx.ts';

useTemplate();

const TASK = `
import { definePlugin, defineTask, z } from '@llmx/core';

const doubling = defineTask({
  name: 'doubling',
  summary: 'Twice a number.',
  config: z.strictObject({ number: z.number().default(0.5) }),
  build: ({ number }) => ({ run: async ({ model }) => ({ twice: 2 * number, vocabSize: model.vocabSize }) }),
});

export default definePlugin({ name: 'tasks', version: '1.0.0', llmx: '^0.1.0', components: [doubling] });
`;

describe.concurrent('help', () => {
  test.for<[string[], string]>([
    [['--help'], 'COMMANDS'],
    [[], 'COMMANDS'],
    [['help'], 'COMMANDS'],
    [['data', '--help'], 'data prepare'],
    [['data'], 'data inspect'],
    [['config', '-h'], 'config schema'],
    [['help', 'data', 'prepare'], '--val-fraction'],
    [['train', '--help'], '--resume'],
  ])('llmx %j', async ([args, text], { expect }) => {
    expect(await prints(top, ...args)).toContain(text);
  });

  test('the version names the package and Node', async ({ expect }) => {
    expect(await prints(top, '--version')).toMatch(/^@llmx\/cli\/\d+\.\d+\.\d+ \S+ node-v\d+/);
  });
});

describe.concurrent('every command, for people and as JSON', () => {
  test('init', async ({ expect }) => {
    const folder = workspace();
    expect(await prints(folder, 'init', '--data', 'data')).toMatchInlineSnapshot(`
      "Wrote llmx.config.yaml.

      Next:
        llmx train llmx.config.yaml
      "
    `);
    const { file } = await gives(folder, 'init', 'nested/dir', '--data', 'data');
    expect(file).toBe(path.join(folder, 'nested', 'dir', 'llmx.config.yaml'));
    const { data } = await gives(folder, 'config', 'show', 'nested/dir/llmx.config.yaml');
    expect(data).toMatchObject({ train: path.join(folder, 'data') });
    expect(await refusal(folder, ['init'])).toMatchInlineSnapshot(`
      "LLMX_OUTPUT_EXISTS
      There is a configuration at "<folder>/llmx.config.yaml" already.
      Name another folder, or overwrite it with --force."
    `);
    expect(await prints(folder, 'init', '--force')).toContain('Wrote');
  });

  test('data prepare', async ({ expect }) => {
    const folder = workspace('texts');
    expect(await prints(folder, 'data', 'prepare', 'texts', '--out', 'data')).toMatchInlineSnapshot(`
      "Prepared data with the tokenizer bytes:

        split  documents  tokens  bytes
        train          3   1,563  1,560
        val            1     521    520

      Next:
        llmx init --data data
        llmx train
      "
    `);
    const summary = await gives(
      folder,
      'data',
      'prepare',
      'texts/{a,b}.txt',
      '--out',
      'sets/pair',
      '--val-fraction',
      '0',
    );
    expect(summary).toMatchObject({
      directory: path.join(folder, 'sets', 'pair'),
      tokenizer: { name: 'bytes' },
      splits: { train: { documents: 2, tokens: 2 * 20 * 26 + 2 } },
    });
  });

  test('data prepare from standard input', async ({ expect }) => {
    const folder = workspace('texts');
    const input = '{"body":"one"}\n{"body":"two"}\n{"body":"three"}\n';
    const args = ['data', 'prepare', '-', '--out', 'data', '--text-field', 'body', '--val-fraction', '0', '--json'];
    const { status, stdout } = await start(folder, args, { input }).ended;
    expect(status).toBe(0);
    expect(onlyObject(stdout)).toMatchObject({ splits: { train: { documents: 3, bytes: 11 } } });
  });

  test('data inspect', async ({ expect }) => {
    const folder = workspace();
    expect(await prints(folder, 'data', 'inspect', 'data', '--verify')).toMatchInlineSnapshot(`
      "data

        split  documents  tokens  bytes
        train          2   1,042  1,040
        val            2   1,042  1,040

      tokenizer    bytes, 257 ids, end of text 256
      fingerprint  77c7162ee145845d0cc1d9f471cdb89e13b1f922fb2d55cfb9504c014587eb8c
      shard        train-00000.arrow, 3.1 kB
      shard        val-00000.arrow, 3.1 kB

      Every shard and every id matches its hash.
      "
    `);
    expect(await gives(folder, 'data', 'inspect', 'data')).toMatchObject({
      verified: false,
      shards: [{ file: 'train-00000.arrow' }, { file: 'val-00000.arrow' }],
    });
    expect(await prints(folder, 'data', 'inspect', '--run', 'done', '--step', '7')).toMatchInlineSnapshot(`
      "micro 0  row 0  window 17
       sea is wide.␊Th

      micro 0  row 1  window 42
      ide.␊The d of th

      "
    `);
    const ofRun = await gives(folder, 'data', 'inspect', '--run', 'done', '--step', '7');
    const ofConfig = ['data', 'inspect', '--config', 'tiny.yaml', '--step', '7'];
    // The run was trained on the template's dataset.
    expect(await gives(folder, ...ofConfig)).toEqual({ ...ofRun, dataset: path.join(folder, 'data') });
    expect(await gives(folder, ...ofConfig, '--set', 'train.seed=2')).not.toEqual(ofRun);
  });

  test('train', async ({ expect }) => {
    const folder = workspace();
    const printed = await prints(folder, 'train', 'tiny.yaml');
    const stable = printed.replace(/[\d,]+ (tok\/s|MiB|tokens\/s)/g, 'N $1').replace(/\d+\.\d+(e-\d+)?/g, 'X');
    // A checkpoint is written beside the steps, so it is not known after which line it is done.
    const isSaved = (line: string): boolean => line.includes(' saved ');
    expect(stable.split('\n').filter(isSaved)).toEqual(
      [4, STEPS].map((step) => `step ${step}/${STEPS}  saved runs/tiny/checkpoints/step-0000000${step}`),
    );
    expect(
      stable
        .split('\n')
        .filter((line) => !isSaved(line))
        .join('\n'),
    ).toMatchInlineSnapshot(`
      "runs/tiny: 3,072 parameters, 32 tokens a step, 65 windows an epoch, backend cpu
      step 1/8  loss X  gradNorm X  lr X  N MiB
      step 4/8  loss X  gradNorm X  lr X  N tok/s  N MiB
      step 4/8  held out: loss X  perplexity X  bits per byte X
      step 8/8  loss X  gradNorm X  lr X  N tok/s  N MiB
      step 8/8  held out: loss X  perplexity X  bits per byte X

      Trained 8 steps, 256 tokens, in runs/tiny
      loss     X on the last batch, X held out (nats per token)
      machine  N tokens/s, at most N MiB, backend cpu

      Next:
        llmx eval runs/tiny
        llmx generate runs/tiny --prompt 'Once upon a time'
      "
    `);
    const result = await gives(folder, 'train', 'tiny.yaml', '--name', 'other');
    expect(result).toMatchObject({
      runDir: path.join(folder, 'runs', 'other'),
      steps: STEPS,
      tokens: STEPS * 2 * 16,
      backend: 'cpu',
    });
    for (const key of ['trainLoss', 'valLoss', 'tokensPerSecond', 'peakMemoryMiB'])
      expect(result[key]).toBeGreaterThan(0);
    // A finished run gives its result again.
    expect(await gives(folder, 'train', 'tiny.yaml', '--name', 'other', '--resume')).toEqual(result);
    const [one, other] = ['tiny', 'other'].map((run) =>
      fs.readFileSync(path.join(checkpoint(folder, run, STEPS), 'model.safetensors')),
    );
    expect(one?.equals(other ?? Buffer.of())).toBe(true);
  });

  test('a run is called `run` where its configuration is called llmx.config', async ({ expect }) => {
    const folder = workspace('data');
    fs.writeFileSync(path.join(folder, 'llmx.config.yaml'), CONFIG);
    expect(await gives(folder, 'train', '--set', 'train.steps=1')).toMatchObject({
      runDir: path.join(folder, 'runs', 'run'),
    });
  });

  test('eval', async ({ expect }) => {
    const folder = workspace();
    const printed = await prints(folder, 'eval', 'done');
    expect(printed.replace(/\d+\.\d+/g, 'X')).toMatchInlineSnapshot(`
      "loss: X nats per token
      perplexity: X
      bits per byte: X
      tokens: 1,040 of split val in <template>/data
      checkpoint: runs/done/checkpoints/step-00000008
      "
    `);
    const all = await gives(folder, 'eval', 'runs/done', '--best', '--backend', 'wasm');
    expect(all).toMatchObject({ split: 'val', contextLength: 16, backend: 'wasm', step: expect.any(Number) });
    for (const key of ['loss', 'perplexity', 'bitsPerByte', 'tokens']) expect(all[key]).toBeGreaterThan(0);
    const some = await gives(
      folder,
      'eval',
      checkpoint(folder, 'done', 4),
      '--split',
      'train',
      '--max-tokens',
      '40',
      '--context-length',
      '8',
    );
    expect(some).toMatchObject({ split: 'train', contextLength: 8, tokens: 40, step: 4 });
  });

  test('eval on tasks', async ({ expect }) => {
    const folder = workspace('data', 'tiny.yaml');
    fs.writeFileSync(path.join(folder, 'tasks.ts'), TASK);
    await gives(
      folder,
      'train',
      'tiny.yaml',
      '--name',
      'done',
      '--set',
      'plugins=[./tasks.ts]',
      '--set',
      'train.steps=1',
    );
    const flags = ['--task', 'doubling,{ name: doubling, number: 4 }', '--task', 'doubling'];
    expect(await prints(folder, 'eval', 'done', ...flags)).toMatchInlineSnapshot(`
      "doubling (number: 0.5), 0 s:
        twice      1.000
        vocabSize  257.0
      doubling (number: 4), 0 s:
        twice      8.000
        vocabSize  257.0
      doubling (number: 0.5), 0 s:
        twice      1.000
        vocabSize  257.0
      checkpoint: runs/done/checkpoints/step-00000001
      "
    `);
    expect(await gives(folder, 'eval', 'done', '--task', 'doubling')).toEqual({
      tasks: [
        {
          task: { name: 'doubling', number: 0.5 },
          metrics: { twice: 1, vocabSize: 257 },
          seconds: expect.any(Number),
        },
      ],
      checkpoint: checkpoint(folder, 'done', 1),
      step: 1,
      backend: 'cpu',
    });
    expect(await refusal(folder, ['eval', 'done', '--task', 'dubling'])).toMatchInlineSnapshot(`
      "LLMX_COMPONENT_UNKNOWN
      There is no task "dubling".
      Did you mean "doubling"?"
    `);
    expect(await refusal(folder, ['eval', 'done', '--task', 'doubling', '--split', 'val'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      --split=val cannot also be provided when using --task.
      \`llmx eval --help\` shows what it takes."
    `);
  });

  test('generate', async ({ expect }) => {
    const folder = workspace();
    const flags = ['--prompt', 'The sea', '--max-tokens', '12', '--seed', '3', '--top-k', '20'];
    const printed = await prints(folder, 'generate', 'done', ...flags);
    const { prompt, text, tokens, seconds, tokensPerSecond } = await gives(folder, 'generate', 'done', ...flags);
    expect(printed).toBe(`${String(prompt)}${String(text)}\n`);
    expect(prompt).toBe('The sea');
    expect(tokens).toBe(12);
    expect(tokensPerSecond).toBeCloseTo(12 / Number(seconds));
  });

  test('components', async ({ expect }) => {
    const folder = workspace();
    const { components } = (await gives(folder, 'components', '--config', 'tiny.yaml')) as {
      components: { kind: string; name: string; options: object[] }[];
    };
    const adamw = components.find(({ name }) => name === 'adamw');
    expect(adamw).toMatchObject({
      kind: 'optimizer',
      plugin: { name: '@llmx/core' },
      paper: expect.stringContaining('arxiv'),
    });
    expect(adamw?.options[0]).toEqual({
      name: 'lr',
      type: 'number',
      default: 0.001,
      required: false,
      description: expect.any(String),
    });
    expect(await prints(folder, 'components', '--kind', 'schedule')).toMatchInlineSnapshot(`
      "SCHEDULE  schedule

        constant  The full learning rate after warm-up.
            @llmx/core 0.1.0
            warmup  integer | string  0  Length of the linear warm-up.

        linear  Falls linearly to \`final\` at the last step.
            @llmx/core 0.1.0
            warmup  integer | string  0  Length of the linear warm-up.
            final   number            0  Multiplier at the last step.

        cosine  Falls along half a cosine to \`final\` at the last step.
            @llmx/core 0.1.0  https://arxiv.org/abs/1608.03983
            warmup  integer | string  0    Length of the linear warm-up.
            final   number            0.1  Multiplier at the last step.

        wsd  Warm-up, stable, decay: constant, then falls linearly to \`final\` over the last \`decay\` steps.
            @llmx/core 0.1.0  https://arxiv.org/abs/2404.06395
            warmup  integer | string  0    Length of the linear warm-up.
            decay   integer | string  20%  Length of the decay at the end.
            final   number            0    Multiplier at the last step.

        inverse-sqrt  Falls with the square root of the step after warm-up; does not depend on the length of the run.
            @llmx/core 0.1.0  https://arxiv.org/abs/1706.03762
            warmup  integer | string  0  Length of the linear warm-up.

      "
    `);
  });

  test('config show prints a configuration that means the same', async ({ expect }) => {
    const folder = workspace();
    const printed = await prints(folder, 'config', 'show', 'tiny.yaml', '--set', 'train.steps=3');
    const shown = printed.replaceAll('<folder>', folder);
    fs.writeFileSync(path.join(folder, 'shown.yaml'), shown);
    expect(await prints(folder, 'config', 'show', 'shown.yaml')).toBe(printed);
    expect(await gives(folder, 'config', 'show', 'shown.yaml')).toMatchObject({
      train: { steps: 3, batchSize: 2, seed: 1 },
    });
  });

  test('config schema', async ({ expect }) => {
    const schema = await gives(top, 'config', 'schema');
    expect(schema).toMatchObject({ title: 'llmx configuration', type: 'object' });
    expect(JSON.parse(await prints(top, 'config', 'schema'))).toEqual(schema);
  });

  test('doctor', async ({ expect }) => {
    const { node, machine, backends, auto } = await gives(top, 'doctor');
    expect(node).toMatchObject({ version: process.version, supported: true });
    expect(machine).toMatchObject({ arch: process.arch });
    expect(backends).toContainEqual({
      name: 'cpu',
      usable: true,
      detail: 'plain JavaScript, one thread',
      precisions: ['fp32'],
    });
    expect(await prints(top, 'doctor')).toContain(`"auto" takes ${String(auto)}.`);
  });
});

test('the plugin of docs/guide/writing-a-plugin.md trains and is evaluated', async ({ expect }) => {
  const folder = workspace('data');
  const guide = fs.readFileSync(new URL('../docs/guide/writing-a-plugin.md', import.meta.url), 'utf8');
  const files = [...guide.matchAll(/^```\w+\n(?:\/\/|#) (\S+)\n([^]*?)^```$/gm)];
  for (const [, name = '', content = ''] of files) fs.writeFileSync(path.join(folder, name), content);
  const small = ['train.steps=10', 'data.train=data', 'model.contextLength=16', 'backend=cpu'];
  const sets = small.flatMap((setting) => ['--set', setting]);
  const { status, stderr } = await llmx(folder, 'train', 'ideas.yaml', ...sets, '--json');
  expect(status, stderr).toBe(0);
  expect(stderr).toContain('loss/hiddenSquare');
  expect(stderr).toContain('[plugin llmx-plugin-ideas 0.1.0] step 10: hidden states have grown');
  const { tasks } = await gives(folder, 'eval', 'ideas', '--task', '{ name: continuation, begin: "to ", end: be }');
  const { logProbability, tokens } = (tasks as [{ metrics: Record<string, number> }])[0].metrics;
  expect(tokens).toBe(2);
  expect(logProbability).toBeLessThan(2 * Math.log(1 / 257) + 4); // hardly trained
  expect(logProbability).toBeGreaterThan(2 * Math.log(1 / 257) - 4);
});
