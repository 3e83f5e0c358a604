import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { LlmxError } from '../errors/index.ts';
import { loadConfig } from './load.ts';

let folder: string;
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'llmx-config-'))));
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), text);
}

async function failure(file?: string): Promise<{ code: string; message: string; hint: string | undefined }> {
  const error: unknown = await loadConfig(file, folder).catch((reason: unknown) => reason);
  if (!LlmxError.is(error)) throw new Error('an error was expected');
  const local = (text: string | undefined) => text?.replaceAll(folder, '<folder>');
  return { code: error.code, message: local(error.message) ?? '', hint: local(error.hint) };
}

test.each([
  ['llmx.config.yaml', 'train: { steps: 7 }'],
  ['llmx.config.yml', 'train: { steps: 7 }'],
  ['llmx.config.json', '{ "train": {\t"steps": 7 } }'],
  ['llmx.config.js', 'export default { train: { steps: 7 } };'],
  ['llmx.config.js', 'module.exports = { train: { steps: 7 } };'],
  ['llmx.config.mjs', 'export default { train: { steps: 7 } };'],
  ['llmx.config.ts', 'const steps: number = 7;\nexport default { train: { steps } };'],
])('finds %s', async (name, text) => {
  write(name, text);
  expect(await loadConfig(undefined, folder)).toEqual({ tree: { train: { steps: 7 } }, file: join(folder, name) });
});

test('searches the folder itself, not those above', async () => {
  write('llmx.config.yaml', '');
  mkdirSync(join(folder, 'below'));
  expect(await loadConfig(undefined, folder)).toEqual({ tree: {}, file: join(folder, 'llmx.config.yaml') });
  await expect(loadConfig(undefined, join(folder, 'below'))).rejects.toThrow('There is no llmx.config.yaml in');
});

test.each(['', '\n\n', '# nothing yet\n', '---\n'])('a file with no settings is empty: %j', async (text) => {
  write('c.yaml', text);
  expect((await loadConfig('c.yaml', folder)).tree).toEqual({});
});

test('paths are relative to the file that names them', async () => {
  write(
    'a/base.yaml',
    'data: { train: ../sotu }\nplugins: [./own.ts, "@llmx/plugin-mtp", { name: ../other.ts, limit: 1 }]',
  );
  write('c.yaml', 'extends: a/base.yaml\ndata: { packing: documents }');
  expect((await loadConfig('c.yaml', folder)).tree).toEqual({
    data: { train: join(folder, 'sotu'), packing: 'documents' },
    plugins: [join(folder, 'a/own.ts'), '@llmx/plugin-mtp', { name: join(folder, 'other.ts'), limit: 1 }],
  });
});

test('a run to start from is a name, or a path that is relative to the file', async () => {
  const initFrom = async (value: string) => {
    write('a/d.yaml', `train: { initFrom: ${value} }`);
    return ((await loadConfig('a/d.yaml', folder)).tree['train'] as { initFrom: unknown }).initFrom;
  };
  expect(await initFrom('first')).toBe('first');
  expect(await initFrom('./first')).toBe(join(folder, 'a/first'));
  expect(await initFrom('../runs/first/checkpoints/step-00000100')).toBe(
    join(folder, 'runs/first/checkpoints/step-00000100'),
  );
});

test('later bases win over earlier ones, and the file over all', async () => {
  write('a.yaml', 'train: { steps: 1, seed: 1, batchSize: 1 }\noptimizer: { name: adamw, beta1: 0.5 }');
  write('b.json', '{ "train": { "seed": 2, "batchSize": 2 } }');
  write('c.yaml', 'extends: [a.yaml, ./b.json]\ntrain: { batchSize: 3 }\noptimizer: { name: lion }');
  expect((await loadConfig('c.yaml', folder)).tree).toEqual({
    train: { steps: 1, seed: 2, batchSize: 3 },
    optimizer: { name: 'lion' },
  });
});

test('two files may share a base, none may extend itself', async () => {
  write('base.yaml', 'train: { steps: 1 }');
  write('a.yaml', 'extends: base.yaml');
  write('b.yaml', 'extends: [base.yaml, a.yaml]');
  expect((await loadConfig('b.yaml', folder)).tree).toEqual({ train: { steps: 1 } });
  write('base.yaml', 'extends: b.yaml');
  expect(await failure('b.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": undefined,
      "message": "The configuration <folder>/b.yaml extends itself: b.yaml -> base.yaml -> b.yaml.",
    }
  `);
});

test('what cannot be read is said in one sentence', async () => {
  expect(await failure()).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_MISSING",
      "hint": "Create one with "llmx init", or give the path of a configuration file.",
      "message": "There is no llmx.config.yaml in <folder>.",
    }
  `);
  expect(await failure('nothing.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_MISSING",
      "hint": "Create one with "llmx init".",
      "message": "The configuration <folder>/nothing.yaml does not exist.",
    }
  `);
  write('c.yaml', 'extends: nothing.yaml');
  expect(await failure('c.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_MISSING",
      "hint": "Paths in extends are relative to the file they stand in.",
      "message": "The file <folder>/nothing.yaml, which <folder>/c.yaml extends, does not exist.",
    }
  `);
  mkdirSync(join(folder, 'd.yaml'));
  expect(await failure('d.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_MISSING",
      "hint": "Give the path of a file that can be read.",
      "message": "The configuration <folder>/d.yaml could not be read: EISDIR: illegal operation on a directory, read.",
    }
  `);
});

test('what cannot be parsed is said with its place', async () => {
  write('c.yaml', 'train:\n  steps: 1\n  steps: 2\n');
  expect(await failure('c.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": "Mend the syntax there; YAML is indented with spaces, never with tabs.",
      "message": "The configuration <folder>/c.yaml cannot be parsed at line 3, column 3: duplicated mapping key.",
    }
  `);
  write('c.json', '{ "train": { "steps": 1 ');
  expect(await failure('c.json')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": "Mend the syntax there; YAML is indented with spaces, never with tabs.",
      "message": "The configuration <folder>/c.json cannot be parsed at line 2, column 1: unexpected end of the stream within a flow collection.",
    }
  `);
  write('c.yaml', 'just a line');
  expect(await failure('c.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": undefined,
      "message": "The configuration <folder>/c.yaml is "just a line": expected settings as key: value.",
    }
  `);
  write('c.toml', 'steps = 1');
  expect(await failure('c.toml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": "Use one of .yaml, .yml, .json, .js, .mjs, .ts.",
      "message": "The configuration <folder>/c.toml is of an unknown type ".toml".",
    }
  `);
  write('c.yaml', 'extends: { a: 1 }');
  expect(await failure('c.yaml')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": undefined,
      "message": "extends is {"a":1} in <folder>/c.yaml: expected a path or a list of paths.",
    }
  `);
  write('d.ts', 'export const steps = 3;');
  expect((await failure('d.ts')).message).toBe('The configuration <folder>/d.ts has no default export.');
  write('c.ts', "throw new Error('not today');");
  expect(await failure('c.ts')).toMatchInlineSnapshot(`
    {
      "code": "LLMX_CONFIG_INVALID",
      "hint": undefined,
      "message": "The configuration <folder>/c.ts could not be loaded: not today.",
    }
  `);
});
