// Folders with data, configuration and a finished run, for end-to-end tests of the command line.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, expect } from 'vitest';

import { llmx, start } from './llmx.ts';

/** Length of a run of tiny.yaml. */
export const STEPS = 8;

export const CONFIG = `
data: { train: data }
model: { dModel: 8, contextLength: 16, blocks: [{ block: attention, repeat: 1, heads: 2 }] }
optimizer: { name: adamw, lr: 0.01 }
schedule: { name: cosine, warmup: 2 }
train: { steps: ${STEPS}, batchSize: 2, logEvery: 4, evalEvery: 4, checkpointEvery: 4 }
backend: cpu
`;

const HELD_CONFIG = `
extends: ./tiny.yaml
plugins: [./gate.ts]
`;

/** Holds training after step 4 until there is a file `go`; says so with a file `held`. */
const GATE = `
import fs from 'node:fs';
import { definePlugin } from '@llmx/core';

async function handler() {
  fs.writeFileSync('held', '');
  while (!fs.existsSync('go')) await new Promise((resolve) => setTimeout(resolve, 5));
  fs.rmSync('held', { force: true });
}

export default definePlugin({
  name: 'gate',
  version: '1.0.0',
  llmx: '>=0.1.0',
  setup: () => ({ hooks: { stepEnd: { every: 4, handler } } }),
});
`;

/** Holds every folder of the tests of a file. */
export const top = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-cli-')));
/** A folder with texts, a dataset, a configuration and a finished run, which tests copy. */
const template = path.join(top, 'template');
let copies = 0;

/** A copy of the template, or of what is named in it. */
export function workspace(...names: string[]): string {
  const folder = path.join(top, String(++copies));
  if (names.length === 0) fs.cpSync(template, folder, { recursive: true });
  for (const name of names) fs.cpSync(path.join(template, name), path.join(folder, name), { recursive: true });
  fs.mkdirSync(folder, { recursive: true });
  return folder;
}

/** Runs a command that succeeds; what it printed for people. */
export async function prints(cwd: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await llmx(cwd, ...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.replaceAll(cwd, '<folder>').replaceAll(template, '<template>');
}

/** The object in the one line that must be all of standard output. */
export function onlyObject(stdout: string): Record<string, unknown> {
  expect(stdout).toMatch(/^\{.*\}\n$/); // the dot matches no line break
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** Runs a command that succeeds with --json; the object in the one line of its standard output. */
export async function gives(cwd: string, ...args: string[]): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await llmx(cwd, ...args, '--json');
  expect(status, stderr).toBe(0);
  return onlyObject(stdout);
}

/** Every file and folder below a folder, with the size of files. */
const listing = (folder: string): string[] =>
  fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => {
      const found = fs.lstatSync(path.join(folder, name));
      return found.isFile() ? `${name} ${found.size}` : name;
    })
    .toSorted();

interface Refusal {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** Temporary folders are named after the process that owns them. */
const withoutOwner = (text: string): string => text.replaceAll(/\.partial-[^/"]+/g, '.partial-<owner>');

/**
 * Runs a command that must be refused, for people and with --json: exit status 2, the same message and hint, no stack,
 * nothing left behind. Returns code, message and hint.
 */
export async function refusal(
  cwd: string,
  args: readonly string[],
  options: { command?: string } = {},
): Promise<string> {
  const before = listing(cwd);
  const human = await start(cwd, args, options).ended;
  const shell = options.command !== undefined;
  const json = await start(cwd, shell ? [...args.slice(0, -1), `${args.at(-1)} --json`] : [...args, '--json'], options)
    .ended;
  expect(listing(cwd)).toEqual(before);
  const { code, message, hint } = onlyObject(json.stdout)['error'] as Refusal;
  expect([human.status, json.status]).toEqual([2, 2]);
  expect(withoutOwner(human.stderr)).toBe(withoutOwner(`${message}\n${hint}\n`));
  const text = withoutOwner([code, message, hint].join('\n'));
  return text.replaceAll(cwd, '<folder>').replaceAll(template, '<template>');
}

/** Waits until something holds; the test's own time limit ends it. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Folder of a run's checkpoint. */
export const checkpoint = (cwd: string, run: string, step: number): string =>
  path.join(cwd, 'runs', run, 'checkpoints', `step-${String(step).padStart(8, '0')}`);

/** Makes the template for the tests of this file, and removes everything afterwards. */
export function useTemplate(): void {
  beforeAll(makeTemplate, 60_000);
  afterAll(() => fs.rmSync(top, { recursive: true, force: true }));
}

async function makeTemplate(): Promise<void> {
  fs.mkdirSync(path.join(template, 'texts'), { recursive: true });
  for (const name of ['a', 'b', 'c', 'd']) {
    const text = `The ${name} of the sea is wide.\n`.repeat(20);
    fs.writeFileSync(path.join(template, 'texts', `${name}.txt`), text);
  }
  fs.writeFileSync(path.join(template, 'tiny.yaml'), CONFIG);
  fs.writeFileSync(path.join(template, 'held.yaml'), HELD_CONFIG);
  fs.writeFileSync(path.join(template, 'gate.ts'), GATE);
  await gives(template, 'data', 'prepare', 'texts', '--out', 'data', '--val-fraction', '0.3');
  await gives(template, 'train', 'tiny.yaml', '--name', 'done');
}
