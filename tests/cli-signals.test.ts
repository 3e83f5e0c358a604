import fs from 'node:fs';
import path from 'node:path';

import { describe, test } from 'vitest';

import { checkpoint, gives, onlyObject, STEPS, until, useTemplate, workspace } from './support/cli-workspace.ts';
import { type Running, start } from './support/llmx.ts';

useTemplate();

describe.concurrent('signals', () => {
  /** A run that is held after step 4 and has been sent a signal, and has said so. */
  async function interrupted(
    folder: string,
    signal: 'SIGINT' | 'SIGTERM' | 'SIGUSR1',
    ...flags: string[]
  ): Promise<Running> {
    const running = start(folder, ['train', 'held.yaml', '--name', 'a', '--json', ...flags]);
    await until(() => fs.existsSync(path.join(folder, 'held')));
    running.child.kill(signal);
    await until(() => running.stderr().includes(`${signal}: `));
    return running;
  }

  const release = (folder: string): void => fs.writeFileSync(path.join(folder, 'go'), '');

  test('SIGINT saves and ends with 130; the resumed run ends with the same weights as one that was left alone', async ({
    expect,
  }) => {
    const folder = workspace();
    const running = await interrupted(folder, 'SIGINT');
    release(folder);
    const { status, stdout, stderr } = await running.ended;
    expect(status).toBe(130);
    expect(onlyObject(stdout)).toMatchInlineSnapshot(`
      {
        "error": {
          "code": "LLMX_INTERRUPTED",
          "hint": "Continue with --resume.",
          "message": "Training was stopped by SIGINT after step 4; its state is saved.",
        },
      }
    `);
    expect(stderr).toContain('SIGINT: finishing the step and saving; a second one stops at once.');
    expect(fs.existsSync(checkpoint(folder, 'a', 4))).toBe(true);
    await gives(folder, 'train', 'held.yaml', '--name', 'a', '--resume');
    const [resumed, whole] = ['a', 'done'].map((run) =>
      fs.readFileSync(path.join(checkpoint(folder, run, STEPS), 'model.safetensors')),
    );
    expect(resumed?.equals(whole ?? Buffer.of())).toBe(true);
  });

  test('SIGTERM ends with 143', async ({ expect }) => {
    const folder = workspace();
    const running = await interrupted(folder, 'SIGTERM');
    release(folder);
    const { status, stdout } = await running.ended;
    expect(status).toBe(143);
    expect(onlyObject(stdout)).toMatchObject({ error: { code: 'LLMX_INTERRUPTED' } });
    expect(fs.existsSync(checkpoint(folder, 'a', 4))).toBe(true);
  });

  test('SIGUSR1 ends with 99 where it is asked for, however often it comes', async ({ expect }) => {
    const folder = workspace();
    const running = await interrupted(folder, 'SIGUSR1', '--requeue-signal', 'SIGUSR1');
    running.child.kill('SIGUSR1');
    release(folder);
    const { status, stdout } = await running.ended;
    expect(status).toBe(99);
    expect(onlyObject(stdout)).toMatchObject({ error: { code: 'LLMX_INTERRUPTED' } });
    expect(fs.existsSync(checkpoint(folder, 'a', 4))).toBe(true);
  });

  test('SIGTERM after SIGUSR1 ends at once', async ({ expect }) => {
    const running = await interrupted(workspace(), 'SIGUSR1', '--requeue-signal', 'SIGUSR1');
    running.child.kill('SIGTERM');
    expect((await running.ended).status).toBe(143); // though the hook is never released
  });

  test('after train.maxTime the status is 99', async ({ expect }) => {
    const args = ['train', 'tiny.yaml', '--name', 'a', '--json', '--set', 'train.maxTime=0.001s'];
    const { status, stdout } = await start(workspace(), args).ended;
    expect(status).toBe(99);
    expect(onlyObject(stdout)).toMatchObject({ error: { code: 'LLMX_INTERRUPTED' } });
  });

  test.for([['SIGINT', 130] as const, ['SIGTERM', 143] as const])(
    'a second %s ends at once',
    async ([signal, expected], { expect }) => {
      const folder = workspace();
      const running = await interrupted(folder, signal);
      running.child.kill(signal);
      expect((await running.ended).status).toBe(expected); // though the hook is never released
    },
  );
});
