// Files of strangers: datasets, runs and checkpoints reach nothing outside of their folders and run no code.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';

import * as coreModule from '@llmx/core';
import { evaluateRun, inspectStep, openDataset, resolveConfig, resolveOptions, verifyRun } from '@llmx/core';

import { encodeState } from '../packages/core/src/checkpoint/encode-state.ts';
import { failureOf, TinyRuns } from './support/tiny-run.ts';

/** Says that it ran, and is no plugin. */
const CODE = `
import fs from 'node:fs';
fs.writeFileSync(import.meta.dirname + '/executed', '');
export default {};
`;
const THROWS = `
import { definePlugin } from '@llmx/core';

export default definePlugin({
  name: 'throws',
  version: '1.0.0',
  llmx: '>=0.1.0',
  setup: () => ({ hooks: { stepEnd: () => { throw new Error('no'); } } }),
});
`;

let runs: TinyRuns;
let outside: string;
beforeAll(async () => {
  runs = await TinyRuns.create();
  outside = path.join(runs.folder, 'outside');
  await runs.train('good');
  fs.cpSync(path.join(runs.folder, 'data'), path.join(runs.folder, 'good-data'), { recursive: true });
}, 60_000);
afterAll(() => runs.remove());
beforeEach(() => {
  for (const folder of [outside, runs.path('r'), path.join(runs.folder, 'data')])
    fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(outside);
  fs.cpSync(runs.path('good'), runs.path('r'), { recursive: true });
  fs.cpSync(path.join(runs.folder, 'good-data'), path.join(runs.folder, 'data'), { recursive: true });
});

const said = (text: string): string => text.replaceAll(runs.folder, '<folder>');
const refusal = (body: () => unknown): Promise<string> =>
  failureOf(Promise.resolve().then(body)).then((text) => said(text));

/** Every file below a folder with its content, and every folder. */
const contents = (folder: string): [string, string][] =>
  fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((name) => {
      const file = path.join(folder, name);
      return [name, fs.statSync(file).isFile() ? fs.readFileSync(file, 'base64') : ''];
    });

/** Moves something out of its folder and leaves a link in its place. */
function linkOut(target: string): void {
  const moved = path.join(outside, path.basename(target));
  fs.renameSync(target, moved);
  fs.symlinkSync(moved, target);
}

test.for(['../outside/train-00000.arrow', '/etc/passwd', '..', 'a/b', 'a\\b', '.hidden', ''])(
  'a dataset cannot name the shard "%s"',
  async (name) => {
    const file = path.join(runs.folder, 'data', 'dataset.json');
    fs.writeFileSync(
      file,
      fs.readFileSync(file, 'utf8').replaceAll('train-00000.arrow', name.replaceAll('\\', '\\\\')),
    );
    expect(await refusal(() => openDataset(path.dirname(file)))).toBe(
      'LLMX_DATASET_DAMAGED: "<folder>/data/dataset.json" is damaged: "splits.train.shards.0.file" is wrong: expected a file name without folders.',
    );
  },
);

test('a dataset cannot name code as its tokenizer', async () => {
  fs.writeFileSync(path.join(runs.folder, 'evil.ts'), CODE);
  const file = path.join(runs.folder, 'data', 'dataset.json');
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('"name": "bytes"', '"name": "./evil.ts"'));
  expect(await refusal(() => runs.train('named'))).toBe('LLMX_COMPONENT_UNKNOWN: There is no tokenizer "./evil.ts".');
  expect(fs.existsSync(path.join(runs.folder, 'executed'))).toBe(false);
});

test.for(['dataset.json', 'train-00000.arrow', 'val-00000.arrow'])('%s of a dataset cannot be a link', async (name) => {
  const data = path.join(runs.folder, 'data');
  linkOut(path.join(data, name));
  expect(await refusal(() => openDataset(data))).toBe(
    `LLMX_DATASET_DAMAGED: "<folder>/data/${name}" is damaged: it is a link, which may lead anywhere, and no file.`,
  );
  expect(await refusal(() => runs.train('linked'))).toContain('it is a link');
});

test.skipIf(process.platform === 'win32')('a pipe in the place of a shard is refused before it is opened', async () => {
  const shard = path.join(runs.folder, 'data', 'train-00000.arrow');
  fs.rmSync(shard);
  execFileSync('mkfifo', [shard]);
  expect(await refusal(() => openDataset(path.dirname(shard)))).toContain('it is no file.');
});

test('the folder of a dataset may be a link, since the user names it', async () => {
  linkOut(path.join(runs.folder, 'data'));
  expect(openDataset(path.join(runs.folder, 'data')).info.splits).toHaveProperty('train');
  fs.rmSync(path.join(runs.folder, 'data'));
});

const STEP = 'checkpoints/step-00000012';
test.for([
  ['run.json', 'LLMX_RUN_DAMAGED'],
  ['metrics.jsonl', 'LLMX_RUN_DAMAGED'],
  ['checkpoints', 'LLMX_RUN_DAMAGED'],
  ['checkpoints/step-00000005', 'LLMX_RUN_DAMAGED'],
  ['checkpoints/latest', 'LLMX_RUN_DAMAGED'],
  ['checkpoints/best', 'LLMX_RUN_DAMAGED'],
  [`${STEP}/state.json`, 'LLMX_CHECKPOINT_DAMAGED'],
  [`${STEP}/model.safetensors`, 'LLMX_CHECKPOINT_DAMAGED'],
  [`${STEP}/optimizer.safetensors`, 'LLMX_CHECKPOINT_DAMAGED'],
] as const)('%s of a run cannot be a link: what it leads to stays as it is', async ([name, code]) => {
  linkOut(runs.path('r', name));
  const before = contents(outside);
  const resumed = runs.train('r', ['train.steps=14', 'train.checkpointEvery=1', 'train.keepLast=1']);
  const error = said(await failureOf(resumed));
  expect(error).toMatch(new RegExp(`^${code}: "<folder>/runs/r/${name}" is .*: it is a link, which may lead anywhere`));
  expect(contents(outside)).toEqual(before);
  expect(await refusal(() => verifyRun({ run: 'r' }, { host: runs.host() }))).toContain('it is a link');
});

test('what recovery and retention remove, they remove as links', async () => {
  const kept = path.join(outside, 'kept');
  fs.mkdirSync(kept);
  fs.writeFileSync(path.join(kept, 'file'), 'mine');
  for (const name of ['.partial-a', 'checkpoints/.partial-b', 'checkpoints/.replaced-latest', '.lock-t'])
    fs.symlinkSync(kept, runs.path('r', name));
  expect(await runs.train('r', ['train.steps=14', 'train.checkpointEvery=1', 'train.keepLast=1'])).toMatchObject({
    steps: 14,
  });
  expect(contents(outside)).toEqual([
    ['kept', ''],
    ['kept/file', Buffer.from('mine').toString('base64')],
  ]);
  expect(fs.readdirSync(runs.path('r', 'checkpoints')).filter((name) => name.startsWith('.'))).toEqual([]);
});

test.for([
  ['leads nowhere', (file: string) => fs.symlinkSync('/nowhere', file)],
  ['leads to another lock', (file: string) => fs.symlinkSync(path.join(outside, 'lock'), file)],
  ['names a place elsewhere', (file: string) => fs.writeFileSync(file, lock('/../../../outside/x'))],
] as const)('a lock that %s is nobody we know, and nothing is written there', async ([, make]) => {
  fs.writeFileSync(path.join(outside, 'lock'), lock('t'));
  const before = contents(outside);
  make(runs.path('r', '.lock'));
  expect(await refusal(() => runs.train('r', ['train.steps=14']))).toBe(
    'LLMX_RUN_LOCKED: The run "<folder>/runs/r" is locked by an unknown process.',
  );
  expect(contents(outside)).toEqual(before);
});

/** The lock of a dead process of this host. */
const lock = (token: string): string => JSON.stringify({ pid: 1, started: '0', hostname: 'test', token });

test('pointers name checkpoints, not places', async () => {
  fs.cpSync(runs.path('r', STEP), path.join(outside, 'step-00000012'), { recursive: true });
  fs.writeFileSync(runs.path('r', 'checkpoints', 'best'), '../../../outside/step-00000012\n');
  const best = evaluateRun({ target: 'r', which: 'best' }, { host: runs.host(), coreModule });
  expect(said(await failureOf(best))).toBe(
    'LLMX_CHECKPOINT_MISSING: There is no best checkpoint in "<folder>/runs/r/checkpoints".',
  );
});

/** Rewrites the state of the newest checkpoint, with a checksum that fits. */
function rewriteState(change: (state: Record<string, unknown>) => void): void {
  const file = runs.path('r', STEP, 'state.json');
  const { sha256: _, ...state } = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>;
  change(state);
  fs.writeFileSync(file, encodeState(state));
}

const evaluated = () => refusal(() => evaluateRun({ target: 'r' }, { host: runs.host(), coreModule }));

test('a checkpoint cannot list files elsewhere', async () => {
  fs.renameSync(runs.path('r', STEP, 'model.safetensors'), path.join(outside, 'model.safetensors'));
  rewriteState((state) => {
    const { 'model.safetensors': model, ...files } = state['files'] as Record<string, unknown>;
    state['files'] = { ...files, '../../../../outside/model.safetensors': model };
  });
  expect(await evaluated()).toBe(
    `LLMX_CHECKPOINT_DAMAGED: "<folder>/runs/r/${STEP}/model.safetensors" is damaged: state.json does not list it.`,
  );
});

test.for([
  [
    './evil.ts',
    (run: Record<string, unknown>) => Object.assign(run['config'] as object, { plugins: [{ name: './evil.ts' }] }),
  ],
  ['c.json', (run: Record<string, unknown>) => Object.assign(run, { file: 'c.json' })],
] as const)('a checkpoint cannot name %s, code from wherever llmx is started', async ([name, change]) => {
  fs.writeFileSync(path.join(runs.folder, 'evil.ts'), CODE);
  rewriteState((state) => void change(state['run'] as Record<string, unknown>));
  expect(await evaluated()).toBe(
    `LLMX_CHECKPOINT_DAMAGED: The checkpoint "<folder>/runs/r/${STEP}" names "${name}" by a relative path, which llmx does not write.`,
  );
  expect(fs.existsSync(path.join(runs.folder, 'executed'))).toBe(false);
});

test.for([
  ['./evil.ts', /^LLMX_RUN_DAMAGED: The run "<folder>\/runs\/r" names ".\/evil.ts" by a relative path/],
  ['evil', /^LLMX_PLUGIN_MISSING: \[plugin evil\] is not installed: looked from <folder>/],
] as const)('a run cannot bring the code "%s" along', async ([name, message]) => {
  fs.writeFileSync(path.join(runs.folder, 'evil.ts'), CODE);
  const installed = runs.path('r', 'node_modules', 'evil');
  fs.mkdirSync(installed, { recursive: true });
  fs.writeFileSync(
    path.join(installed, 'package.json'),
    '{ "name": "evil", "type": "module", "exports": "./index.js" }',
  );
  fs.writeFileSync(path.join(installed, 'index.js'), CODE);
  const file = runs.path('r', 'run.json');
  const manifest = JSON.parse(fs.readFileSync(file, 'utf8')) as { config: object };
  Object.assign(manifest.config, { plugins: [{ name }] });
  fs.writeFileSync(file, JSON.stringify(manifest));
  expect(await refusal(() => inspectStep({ run: 'r', step: 1 }, { host: runs.host(), coreModule }))).toMatch(message);
  expect([runs.folder, installed].filter((place) => fs.existsSync(path.join(place, 'executed')))).toEqual([]);
});

test('code is a configuration where it is named or lies in the current folder, nowhere else', async () => {
  const cwd = path.join(outside, 'project');
  fs.mkdirSync(cwd);
  fs.writeFileSync(path.join(outside, 'llmx.config.ts'), CODE);
  fs.writeFileSync(path.join(cwd, 'other.config.ts'), CODE);
  fs.writeFileSync(path.join(cwd, 'c.yaml'), 'model: !!js/function "() => 1"\n');
  const options = resolveOptions({ host: runs.host({ cwd }), coreModule });
  expect(await refusal(() => resolveConfig(options))).toMatch(/^LLMX_CONFIG_MISSING/);
  expect(await refusal(() => resolveConfig({ ...options, file: 'c.yaml' }))).toMatch(/^LLMX_CONFIG_INVALID/);
  const executed = [cwd, outside].filter((folder) => fs.existsSync(path.join(folder, 'executed')));
  expect(executed).toEqual([]);
  fs.writeFileSync(path.join(cwd, 'llmx.config.ts'), CODE);
  await refusal(() => resolveConfig(options));
  expect(fs.existsSync(path.join(cwd, 'executed'))).toBe(true);
});

test('a run that does not come to be leaves what was in its directory', async () => {
  fs.writeFileSync(path.join(runs.folder, 'throws.ts'), THROWS);
  fs.mkdirSync(runs.path('mine'));
  fs.writeFileSync(runs.path('mine', 'notes.md'), 'Try this.');
  const error = await failureOf(runs.train('mine', ['plugins=[./throws.ts]']));
  expect(error).toMatch(/^LLMX_HOOK_FAILED/);
  expect(fs.readdirSync(runs.path('mine'))).toEqual(['notes.md']);
});
