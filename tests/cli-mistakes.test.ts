import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { describe, test } from 'vitest';

import {
  checkpoint,
  CONFIG,
  onlyObject,
  refusal,
  STEPS,
  until,
  useTemplate,
  workspace,
} from './support/cli-workspace.ts';
import { llmx, PROGRAM, start } from './support/llmx.ts';

useTemplate();

/** Changes one byte in the middle of a file. */
function flipByte(file: string): void {
  const bytes = fs.readFileSync(file);
  const middle = Math.floor(bytes.length / 2);
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  fs.writeFileSync(file, bytes);
}

/** A plugin in a file of its own, as the only one of tiny.yaml. */
function usePlugin(folder: string, definition: string): void {
  fs.writeFileSync(
    path.join(folder, 'own.ts'),
    `import { definePlugin } from '@llmx/core';\nexport default definePlugin(${definition});\n`,
  );
  fs.writeFileSync(path.join(folder, 'tiny.yaml'), `${CONFIG}plugins: [./own.ts]\n`);
}

const hasUlimit = spawnSync('bash', ['-c', 'ulimit -f 8']).status === 0;

describe.concurrent('a mistake is answered with one clear sentence, and leaves nothing behind', () => {
  test('unknown command', async ({ expect }) => {
    expect(await refusal(workspace(), ['data', 'prepra', 'texts'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      There is no command "data prepra".
      Did you mean "data prepare"?"
    `);
    expect(await refusal(workspace(), ['trian'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      There is no command "trian".
      Did you mean "train"?"
    `);
    expect(await refusal(workspace(), ['doctor', 'now'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      The command "doctor" takes no argument "now".
      \`llmx doctor --help\` shows its flags."
    `);
  });

  test('unknown flag, missing argument, value out of range', async ({ expect }) => {
    const folder = workspace();
    expect(await refusal(folder, ['train', 'tiny.yaml', '--resum'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      The command "train" has no flag "--resum".
      Did you mean "--resume"?"
    `);
    expect(await refusal(folder, ['eval'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      The argument TARGET of "eval" is missing.
      \`llmx eval --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['data', 'prepare', 'texts'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      The flag --out is missing.
      \`llmx data prepare --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['train', 'tiny.yaml', 'other.yaml'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      The command "train" takes no argument "other.yaml".
      \`llmx train --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['generate', 'done', '--top-p', '1.5'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      --top-p is "1.5"; it must be a number above 0 and at most 1.
      \`llmx generate --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['data', 'inspect', 'data', '--step', '1'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      A dataset has no steps.
      Name a --run or a --config beside --step."
    `);
  });

  test('unknown key and wrong type, in one go', async ({ expect }) => {
    const sets = ['--set', 'train.stepz=4', '--set', 'train.batchSize=many'];
    expect(await refusal(workspace(), ['train', 'tiny.yaml', '--name', 'a', ...sets])).toMatchInlineSnapshot(`
      "LLMX_CONFIG_INVALID
      train.batchSize is "many": expected an integer.
      There is no setting "train.stepz".
      Did you mean "train.steps"?"
    `);
  });

  test('missing configuration and missing dataset', async ({ expect }) => {
    const folder = workspace();
    expect(await refusal(folder, ['train'])).toMatchInlineSnapshot(`
      "LLMX_CONFIG_MISSING
      There is no llmx.config.yaml in <folder>.
      Create one with "llmx init", or give the path of a configuration file."
    `);
    const args = ['train', 'tiny.yaml', '--name', 'a', '--set', 'data.train=nowhere'];
    expect(await refusal(folder, args)).toMatchInlineSnapshot(`
      "LLMX_DATASET_MISSING
      There is no prepared dataset at "<folder>/nowhere": it has no dataset.json.
      Prepare one with: llmx data prepare <files> --out <folder>/nowhere"
    `);
  });

  test('truncated shard', async ({ expect }) => {
    const folder = workspace();
    fs.truncateSync(path.join(folder, 'data', 'train-00000.arrow'), 1000);
    expect(await refusal(folder, ['train', 'tiny.yaml', '--name', 'a'])).toMatchInlineSnapshot(`
      "LLMX_DATASET_DAMAGED
      "<folder>/data/train-00000.arrow" is damaged: it has 1000 bytes, dataset.json says 3106.
      Copy the dataset again from where it was intact, or prepare it again."
    `);
  });

  test('shard of another tokenizer', async ({ expect }) => {
    const folder = workspace();
    const { hash } = JSON.parse(fs.readFileSync(path.join(folder, 'data', 'dataset.json'), 'utf8')).tokenizer as {
      hash: string;
    };
    const file = path.join(folder, 'data', 'train-00000.arrow');
    const other = fs.readFileSync(file, 'latin1').replaceAll(hash, 'f'.repeat(hash.length));
    fs.writeFileSync(file, other, 'latin1');
    expect(await refusal(folder, ['train', 'tiny.yaml', '--name', 'a'])).toMatchInlineSnapshot(`
      "LLMX_TOKENIZER_MISMATCH
      "<folder>/data/train-00000.arrow" was written with the tokenizer ffffffffffff, its dataset with "bytes" (0f0a1def7e84).
      The shard belongs to another dataset: put the right one back, or prepare the dataset again."
    `);
  });

  test('corrupted checkpoint', async ({ expect }) => {
    const folder = workspace();
    flipByte(path.join(checkpoint(folder, 'done', STEPS), 'model.safetensors'));
    expect(await refusal(folder, ['eval', 'done'])).toMatchInlineSnapshot(`
      "LLMX_CHECKPOINT_DAMAGED
      "<folder>/runs/done/checkpoints/step-00000008/model.safetensors" is damaged: its content does not match its sha256.
      The newest good checkpoint is "<folder>/runs/done/checkpoints/step-00000004": name that one, or delete "<folder>/runs/done/checkpoints/step-00000008" and continue with --resume."
    `);
    const more = [
      'train',
      'tiny.yaml',
      '--name',
      'done',
      '--resume',
      '--set',
      'data.train=data',
      '--set',
      'train.steps=12',
    ];
    expect(await refusal(folder, more)).toMatchInlineSnapshot(`
      "LLMX_CHECKPOINT_DAMAGED
      "<folder>/runs/done/checkpoints/step-00000008/model.safetensors" is damaged: its content does not match its sha256.
      The newest good checkpoint is "<folder>/runs/done/checkpoints/step-00000004": name that one, or delete "<folder>/runs/done/checkpoints/step-00000008" and continue with --resume."
    `);
  });

  test('vocabulary too large', async ({ expect }) => {
    const args = ['train', 'tiny.yaml', '--name', 'a', '--set', 'model.vocabSize=100'];
    expect(await refusal(workspace(), args)).toMatchInlineSnapshot(`
      "LLMX_VOCAB_TOO_LARGE
      The tokenizer has 257 ids, which do not fit model.vocabSize 100.
      Set model.vocabSize to at least 257, or leave it out."
    `);
  });

  test('empty input, binary input, missing input', async ({ expect }) => {
    const folder = workspace();
    fs.writeFileSync(path.join(folder, 'empty.txt'), '');
    fs.writeFileSync(
      path.join(folder, 'binary.txt'),
      Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0]),
    );
    const prepare = (input: string): Promise<string> => refusal(folder, ['data', 'prepare', input, '--out', 'new/set']);
    expect(await prepare('empty.txt')).toMatchInlineSnapshot(`
      "LLMX_INPUT_EMPTY
      The input holds no text: every document is empty.
      Name files that hold text."
    `);
    expect(await prepare('binary.txt')).toMatchInlineSnapshot(`
      "LLMX_INPUT_INVALID
      "binary.txt" is not a text file: it is not valid UTF-8 at byte 0.
      Give text in UTF-8."
    `);
    expect(await prepare('missing.txt')).toMatchInlineSnapshot(`
      "LLMX_INPUT_MISSING
      There is no file or folder "missing.txt" in "<folder>".
      Check the path; put globs in quotes, so that the shell hands them on as they are."
    `);
  });

  test('file-size limit', async ({ expect, skip }) => {
    skip(!hasUlimit, 'bash has no ulimit -f here');
    const folder = workspace();
    fs.writeFileSync(path.join(folder, 'large.txt'), 'All work and no play.\n'.repeat(5000));
    const limited = (args: string): Promise<string> =>
      refusal(folder, ['-c', `ulimit -f 16 && exec "${process.execPath}" "${PROGRAM}" ${args}`], { command: 'bash' });
    expect(await limited('data prepare large.txt --out new')).toMatchInlineSnapshot(`
      "LLMX_DISK_FULL
      Could not write "<folder>/new/train-00000.arrow": it would exceed the largest file size allowed (EFBIG).
      Raise the file-size limit (ulimit -f), or choose a folder elsewhere."
    `);
    expect(await limited('train tiny.yaml --name a --set model.dModel=64')).toMatchInlineSnapshot(`
      "LLMX_DISK_FULL
      Could not write "<folder>/runs/a/checkpoints/.partial-<owner>/model.safetensors": it would exceed the largest file size allowed (EFBIG).
      Raise the file-size limit (ulimit -f), or choose a folder elsewhere."
    `);
  });

  test('existing run without --resume, and a run that is resumed with other settings', async ({ expect }) => {
    const folder = workspace();
    expect(await refusal(folder, ['train', 'tiny.yaml', '--name', 'done'])).toMatchInlineSnapshot(`
      "LLMX_RUN_EXISTS
      The run "<folder>/runs/done" exists already.
      Continue it with --resume, or choose another --name."
    `);
    const other = ['train', 'tiny.yaml', '--name', 'done', '--resume', '--set', 'optimizer.lr=0.1'];
    expect(await refusal(folder, other)).toMatchInlineSnapshot(`
      "LLMX_RESUME_MISMATCH
      The run was started with other settings: optimizer.lr was 0.01 and is now 0.1.
      Take these settings back, start a new run under another --name, or continue anyway with --allow-changes."
    `);
  });

  test('two runs in one directory at once', async ({ expect }) => {
    const folder = workspace();
    const first = start(folder, ['train', 'held.yaml', '--name', 'a']);
    await until(() => fs.existsSync(path.join(folder, 'held')));
    const refused = await refusal(folder, ['train', 'held.yaml', '--name', 'a', '--resume']);
    expect(refused.replace(`process ${first.child.pid} on ${os.hostname()}`, 'process N on HOST'))
      .toMatchInlineSnapshot(`
      "LLMX_RUN_LOCKED
      The run "<folder>/runs/a" is in use by process N on HOST.
      Wait until that process ends, stop it, or choose another --name."
    `);
    fs.writeFileSync(path.join(folder, 'go'), '');
    expect((await first.ended).status).toBe(0);
  });

  test('plugin of an incompatible version', async ({ expect }) => {
    const folder = workspace();
    usePlugin(folder, `{ name: 'own', version: '1.0.0', llmx: '^99.0.0' }`);
    const refused = await refusal(folder, ['train', 'tiny.yaml', '--name', 'a']);
    expect(refused.replace(/is \d+\.\d+\.\d+/, 'is VERSION')).toMatchInlineSnapshot(`
      "LLMX_PLUGIN_VERSION
      [plugin own 1.0.0] needs @llmx/core ^99.0.0, and this is VERSION.
      Install a version of the plugin made for @llmx/core 0.1.0, or an llmx in the range ^99.0.0."
    `);
  });

  test('plugin that throws in a hook', async ({ expect }) => {
    const folder = workspace();
    const hooks = `{ stepEnd({ step }) { if (step === 2) throw new TypeError('no second step'); } }`;
    usePlugin(folder, `{ name: 'own', version: '1.0.0', llmx: '>=0.1.0', setup: () => ({ hooks: ${hooks} }) }`);
    expect(await refusal(folder, ['train', 'tiny.yaml', '--name', 'a'])).toMatchInlineSnapshot(`
      "LLMX_HOOK_FAILED
      [plugin own 1.0.0] the stepEnd hook failed at step 2: no second step.
      Repair or update the plugin, or remove it from plugins."
    `);
  });

  test('bf16 where the backend has none', async ({ expect }) => {
    const args = ['train', 'tiny.yaml', '--name', 'a', '--set', 'precision=bf16', '--set', 'backend=wasm'];
    expect(await refusal(workspace(), args)).toMatchInlineSnapshot(`
      "LLMX_PRECISION_UNSUPPORTED
      The backend "wasm" does not compute in bf16.
      Choose one of the backends that have it: native; or set precision: fp32."
    `);
  });
});

describe.concurrent('a defect', () => {
  const definition = `{
    name: 'own', version: '1.0.0', llmx: '>=0.1.0',
    components: [{
      kind: 'objective', name: 'broken', summary: 'Fails.', config: z.strictObject({}),
      build: () => ({ lookahead: 1, targets: () => ({ loss: 1 }), loss() { throw new TypeError('nothing to subtract'); } }),
    }],
  }`;
  const args = ['train', 'tiny.yaml', '--name', 'a', '--set', 'objective=broken'];

  function brokenWorkspace(): string {
    const folder = workspace();
    usePlugin(folder, definition);
    const file = path.join(folder, 'own.ts');
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('{ definePlugin }', '{ definePlugin, z }'));
    return folder;
  }

  test('has exit status 1, and a stack only with LLMX_DEBUG', async ({ expect }) => {
    const human = await llmx(brokenWorkspace(), ...args);
    expect(human.status).toBe(1);
    expect(human.stderr).toMatchInlineSnapshot(`
      "nothing to subtract
      This is a defect of llmx or of a plugin; please report it with the stack that LLMX_DEBUG=1 shows.
      "
    `);
    const debugged = await start(brokenWorkspace(), args, { env: { LLMX_DEBUG: '1' } }).ended;
    expect(debugged.stderr).toContain('    at ');
    const json = await llmx(brokenWorkspace(), ...args, '--json');
    expect(json.status).toBe(1);
    expect(onlyObject(json.stdout)).toMatchObject({
      error: { code: 'LLMX_INVARIANT', message: 'nothing to subtract' },
    });
  });
});

test('with --json, what a plugin prints goes to standard error', async ({ expect }) => {
  const folder = workspace();
  usePlugin(
    folder,
    `{ name: 'own', version: '1.0.0', llmx: '>=0.1.0', setup() { console.log('a plugin speaks'); return {}; } }`,
  );
  const { status, stdout, stderr } = await llmx(folder, 'train', 'tiny.yaml', '--name', 'a', '--json');
  expect(status).toBe(0);
  expect(onlyObject(stdout)).toMatchObject({ steps: STEPS });
  expect(stderr).toContain('a plugin speaks');
});

test('a user whom the system does not know, as in containers, is no mistake', async ({ expect }) => {
  const unknown = `import os from 'node:os'; import { syncBuiltinESMExports } from 'node:module';
    os.userInfo = () => { throw new Error('uv_os_get_passwd returned ENOENT'); }; syncBuiltinESMExports();`;
  const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(unknown)}`;
  const { status, stdout } = await start(workspace(), ['--version'], { env: { NODE_OPTIONS, SHELL: undefined } }).ended;
  expect({ status, stdout }).toMatchObject({ status: 0, stdout: expect.stringContaining('@llmx/cli') });
});
