import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { Host } from '../plugin/host.ts';
import { createRun, listRuns, locateCheckpoint, locateRun, openRun, runPath } from './directory.ts';
import { createManifest } from './manifest.ts';

let cwd: string;
beforeEach(() => void (cwd = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-runs-'))));
afterEach(() => fs.rmSync(cwd, { recursive: true }));

const host = (pid: number): Host['process'] => ({
  pid,
  version: 'v20.19.0',
  started: 's',
  hostname: 'here',
  isAlive: () => true,
});
const manifest = (name: string) =>
  createManifest({
    name,
    config: {},
    plugins: [],
    hookOrder: {},
    datasets: [],
    code: {},
    node: 'v20',
    backend: { name: 'cpu', description: '' },
  });

/** A run with checkpoints of the given steps (as far as names go). */
function make(name: string, ...steps: number[]): string {
  const directory = runPath(name, cwd);
  const run = createRun(directory, manifest(name), host(1));
  for (const step of steps)
    fs.mkdirSync(path.join(run.checkpoints, `step-${String(step).padStart(8, '0')}`), { recursive: true });
  run.close();
  return directory;
}

function errorOf(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    const { code, message, hint } = error as Record<'code' | 'message' | 'hint', string>;
    return { code, message: message.replaceAll(cwd, 'CWD'), hint: hint.replaceAll(cwd, 'CWD') };
  }
  throw new Error('Nothing was thrown.');
}

describe('createRun', () => {
  test('makes a directory that is locked until it is closed', () => {
    const directory = runPath('a', cwd);
    const run = createRun(directory, manifest('a'), host(1));
    expect(run.manifest.name).toBe('a');
    expect(run.checkpoints).toBe(path.join(cwd, 'runs', 'a', 'checkpoints'));
    expect(run.metrics).toBe(path.join(cwd, 'runs', 'a', 'metrics.jsonl'));
    expect(errorOf(() => openRun(directory, host(2)))).toMatchObject({ code: 'LLMX_RUN_LOCKED' });
    run.close();
    expect(fs.readdirSync(directory)).toEqual(['run.json']);
  });

  test('refuses a directory that is a run, or holds checkpoints', () => {
    const directory = make('a', 10);
    expect(errorOf(() => createRun(directory, manifest('a'), host(1)))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_RUN_EXISTS",
        "hint": "Continue it with --resume, choose another --name, or delete the directory.",
        "message": "The directory "CWD/runs/a" holds a run already.",
      }
    `);
    fs.rmSync(path.join(directory, 'run.json'));
    expect(errorOf(() => createRun(directory, manifest('a'), host(1)))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_RUN_EXISTS",
        "hint": "Choose another --name, or delete the directory.",
        "message": "The directory "CWD/runs/a" holds checkpoints without their run.json.",
      }
    `);
    expect(fs.readdirSync(directory)).toEqual(['checkpoints']);
  });

  test('uses what an interrupted attempt left', () => {
    const directory = runPath('a', cwd);
    fs.mkdirSync(directory, { recursive: true });
    fs.writeFileSync(path.join(directory, '.partial-run.json-1'), '{');
    make('a');
    expect(fs.readdirSync(directory)).toEqual(['run.json']);
  });

  test('leaves nothing behind when it fails', () => {
    const directory = runPath('a', cwd);
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    expect(() => createRun(directory, { ...manifest('a'), config: circular }, host(1))).toThrow('circular');
    expect(fs.readdirSync(cwd)).toEqual([]);
    make('b');
    expect(() => createRun(directory, { ...manifest('a'), config: circular }, host(1))).toThrow('circular');
    expect(fs.readdirSync(path.join(cwd, 'runs'))).toEqual(['b']);
  });

  test('names a folder in which nothing can be created', () => {
    fs.writeFileSync(path.join(cwd, 'runs'), '');
    expect(errorOf(() => createRun(runPath('a', cwd), manifest('a'), host(1)))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_IO_FAILED",
        "hint": "Check that the path is right and that its permissions allow this.",
        "message": "Could not create "CWD/runs/a": not a directory (ENOTDIR).",
      }
    `);
  });
});

describe('openRun', () => {
  test('gives the manifest, which can be replaced', () => {
    const directory = make('a');
    const run = openRun(directory, host(1));
    run.update({ ...run.manifest, result: { steps: 40 } });
    run.close();
    const again = openRun(directory, host(2));
    expect(again.manifest).toMatchObject({ name: 'a', result: { steps: 40 } });
    again.close();
  });

  test('refuses what is not a run, without a trace', () => {
    expect(errorOf(() => openRun(cwd, host(1)))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_RUN_MISSING",
        "hint": "Name the directory of a run, e.g. runs/<name>.",
        "message": "There is no run in "CWD".",
      }
    `);
    expect(errorOf(() => openRun(path.join(cwd, 'none'), host(1)))).toMatchObject({ code: 'LLMX_RUN_MISSING' });
    expect(fs.readdirSync(cwd)).toEqual([]);
  });
});

describe('a name', () => {
  test.each(['a', 'A-1_b.c', 'with space', '\u00e9\u{1f600}', 'x'.repeat(200)])('can be %j', (name) => {
    expect(runPath(name, cwd)).toBe(path.join(cwd, 'runs', name));
  });
  test.each(['', '.', '..', '.hidden', 'a/b', 'a\\b', '/a', 'a\0', 'a\nb', 'x'.repeat(201)])('cannot be %j', (name) => {
    expect(() => runPath(name, cwd)).toThrow(expect.objectContaining({ code: 'LLMX_USAGE' }));
  });
  test('that cannot be is told', () =>
    expect(errorOf(() => runPath('../a', cwd))).toMatchInlineSnapshot(`
    {
      "code": "LLMX_USAGE",
      "hint": "Choose a name of 1 to 200 bytes without slashes that does not start with a dot.",
      "message": ""../a" cannot be the name of a run.",
    }
  `));
});

describe('what users type', () => {
  test('is the path or the name of a run', () => {
    const directory = make('a', 5, 10);
    for (const target of ['a', 'runs/a', './runs/a/', directory]) {
      expect(locateRun(target, cwd)).toBe(directory);
      expect(locateCheckpoint(target, cwd)).toEqual({
        run: directory,
        checkpoint: path.join(directory, 'checkpoints', 'step-00000010'),
      });
    }
    fs.writeFileSync(path.join(directory, 'checkpoints', 'best'), 'step-00000005\n');
    expect(locateCheckpoint('a', cwd, 'best').checkpoint).toBe(path.join(directory, 'checkpoints', 'step-00000005'));
  });

  test('is the path of a checkpoint, of a run or copied', () => {
    const directory = make('a', 5);
    expect(locateCheckpoint('runs/a/checkpoints/step-00000005', cwd)).toEqual({
      run: directory,
      checkpoint: path.join(directory, 'checkpoints', 'step-00000005'),
    });
    fs.mkdirSync(path.join(cwd, 'copy'));
    fs.writeFileSync(path.join(cwd, 'copy', 'state.json'), '');
    expect(locateCheckpoint('copy', cwd)).toEqual({ checkpoint: path.join(cwd, 'copy') });
  });

  test('is answered with what there is', () => {
    expect(errorOf(() => locateRun('a', cwd))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_RUN_MISSING",
        "hint": "Give its path, or the name of a run in "CWD/runs". There are none.",
        "message": "There is no run "a".",
      }
    `);
    make('baseline');
    make('wide');
    fs.mkdirSync(path.join(cwd, 'runs', 'no-run'));
    expect(listRuns(cwd)).toEqual(['baseline', 'wide']);
    expect(errorOf(() => locateRun('base-line', cwd))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_RUN_MISSING",
        "hint": "Give its path, or the name of a run in "CWD/runs". Did you mean "baseline"?",
        "message": "There is no run "base-line".",
      }
    `);
    expect(errorOf(() => locateCheckpoint('elsewhere', cwd))).toMatchInlineSnapshot(`
      {
        "code": "LLMX_RUN_MISSING",
        "hint": "Give its path, or the name of a run in "CWD/runs". Known: baseline, wide.",
        "message": "There is no run or checkpoint "elsewhere".",
      }
    `);
    expect(errorOf(() => locateCheckpoint('wide', cwd))).toMatchObject({ code: 'LLMX_CHECKPOINT_MISSING' });
  });
});

const MODULES = new URL('../../dist/run/', import.meta.url).href;
const hasUlimit = process.platform !== 'win32' && spawnSync('bash', ['-c', 'ulimit -f 0']).status === 0;
// Skipped where bash cannot limit the size of files (Windows).
test.skipIf(!hasUlimit)('a full disk leaves no run', () => {
  const program = `
    import { createRun } from '${MODULES}directory.js';
    try {
      createRun(${JSON.stringify(runPath('a', cwd))}, ${JSON.stringify(manifest('a'))}, { pid: 1, started: 's', hostname: 'here', isAlive: () => true });
    } catch ({ code }) {
      console.log(code);
    }`;
  const command = 'ulimit -f 0; exec "$0" --input-type=module -e "$1"';
  const { stdout } = spawnSync('bash', ['-c', command, process.execPath, program], { encoding: 'utf8' });
  expect(stdout).toBe('LLMX_DISK_FULL\n');
  expect(fs.readdirSync(cwd)).toEqual([]);
});
