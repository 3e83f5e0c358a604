import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { createManifest, isRun, readManifest, type RunFacts, writeManifest } from './manifest.ts';

let folder: string;
beforeEach(() => void (folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-manifest-'))));
afterEach(() => fs.rmSync(folder, { recursive: true }));

const facts: RunFacts = {
  name: 'a',
  config: { train: { steps: 40 } },
  plugins: [{ name: '@llmx/plugin-mtp', version: '1.0.0' }],
  hookOrder: { stepEnd: ['@llmx/plugin-mtp'] },
  datasets: [{ path: '/data/sotu', fingerprint: 'abc' }],
  code: { '@llmx/core': '0.1.0', '@llmx/cli': '0.1.0' },
  node: 'v20.19.0',
  backend: { name: 'cpu', description: 'plain JavaScript' },
};

const messageOf = (body: () => unknown): string => {
  try {
    body();
  } catch (error) {
    return (error as Error).message.replaceAll(folder, 'RUN');
  }
  throw new Error('Nothing was thrown.');
};

test('a manifest is read as it was written, with the machine and the time of creation', () => {
  const manifest = createManifest(facts);
  writeManifest(folder, manifest);
  expect(readManifest(folder)).toEqual(manifest);
  expect(manifest).toMatchObject(facts);
  expect(manifest.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(manifest.machine.cores).toBe(os.cpus().length);
  expect(manifest.machine.memoryMiB).toBeGreaterThan(0);
});

test('a result is added in one step; nothing else is left', () => {
  writeManifest(folder, createManifest(facts));
  writeManifest(folder, { ...readManifest(folder), result: { steps: 40, valLoss: 1.5 } });
  expect(readManifest(folder).result).toEqual({ steps: 40, valLoss: 1.5 });
  expect(fs.readdirSync(folder)).toEqual(['run.json']);
});

test('a folder without run.json is not a run, and a spoilt run.json is told', () => {
  expect(isRun(folder)).toBe(false);
  expect(messageOf(() => readManifest(folder))).toMatchInlineSnapshot(`"There is no run in "RUN"."`);
  fs.writeFileSync(path.join(folder, 'run.json'), '{"format":"llmx-run"');
  expect(messageOf(() => readManifest(folder))).toContain('cannot be read as the description of a run: SyntaxError');
  fs.writeFileSync(path.join(folder, 'run.json'), JSON.stringify({ ...createManifest(facts), version: 2 }));
  expect(messageOf(() => readManifest(folder))).toMatchInlineSnapshot(
    `""RUN/run.json" cannot be read as the description of a run: version: Invalid input: expected 1."`,
  );
});
