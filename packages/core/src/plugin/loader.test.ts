import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';

import { LlmxError, LlmxProblems } from '../errors/index.ts';
import { tf } from '../tensor/index.ts';
import { defineOptimizer, definePlugin } from './define.ts';
import { type LoadOptions, loadPlugins } from './loader.ts';
import type { Selected } from './types.ts';

const CORE_VERSION = '0.1.0';
const CORE_FOLDER = realpathSync(fileURLToPath(new URL('../..', import.meta.url)));

const sgd = defineOptimizer({
  name: 'sgd',
  summary: 'Plain descent.',
  config: z.strictObject({ lr: z.number().default(0.1) }),
  build: () => ({ init: () => 0, update: ({ params, state }) => ({ params, state }) }),
});
const builtin = definePlugin({ name: '@llmx/core', version: CORE_VERSION, llmx: '*', components: [sgd] });

let folder: string;
let logged: string[];
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'llmx-plugins-')));
  logged = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** A package `name` below `place`, whose module is `code`. */
function install(place: string, name: string, code: string, manifest: object = {}): void {
  const exports = { '.': { types: './index.d.ts', import: './plugin.js' } };
  write(
    `${place}/node_modules/${name}/package.json`,
    JSON.stringify({ name, version: '1.0.0', type: 'module', exports, ...manifest }),
  );
  write(`${place}/node_modules/${name}/plugin.js`, code);
}

const plain = (name: string, more = ''): string =>
  `export default { name: '${name}', version: '1.0.0', llmx: '*', ${more} };`;

function load(...entries: (string | Selected)[]) {
  const options: LoadOptions = {
    host: { installRoot: join(folder, 'cli'), log: (level, message) => void logged.push(`${level} ${message}`) },
    from: join(folder, 'experiment'),
    builtin,
    coreVersion: CORE_VERSION,
    coreModule: { tf, z, definePlugin, LlmxError },
  };
  return loadPlugins(
    entries.map((entry) => (typeof entry === 'string' ? { name: entry } : entry)),
    options,
  );
}

/** Every problem of a load, the temporary folder and core's own replaced by names. */
async function problemsOf(...entries: (string | Selected)[]): Promise<string[]> {
  const error: unknown = await load(...entries).catch((reason: unknown) => reason);
  if (!(error instanceof LlmxProblems)) throw new Error(`problems were expected, got ${String(error)}`);
  const local = (text = ''): string => text.replaceAll(folder, '<folder>').replaceAll(CORE_FOLDER, '<core>');
  return error.problems.map(({ code, message, hint }) => local(`${code} ${message} ${hint}`));
}

test('packages resolve from the folder of the configuration, then from that of the program', async () => {
  install('experiment', 'both', plain('both', 'config: undefined'));
  install('cli', 'both', plain('wrong'));
  install('cli', '@scope/shipped', plain('@scope/shipped'));
  const active = await load('both', '@scope/shipped');
  expect(active.map(({ name, version, entry }) => ({ name, version, entry }))).toEqual([
    { name: '@llmx/core', version: '0.1.0', entry: '@llmx/core' },
    { name: 'both', version: '1.0.0', entry: 'both' },
    { name: '@scope/shipped', version: '1.0.0', entry: '@scope/shipped' },
  ]);
});

test('a TypeScript file gets the running copies, wherever it lies', async () => {
  write('shared/limit.ts', "import { z } from 'zod';\nexport const limit: z.ZodNumber = z.number();");
  const file = write(
    'shared/own.ts',
    `import { definePlugin, LlmxError, tf, z, type Plugin } from '@llmx/core';
     import * as tensors from '@tensorflow/tfjs-core';
     import * as zod from 'zod';
     import { limit } from './limit.ts';
     const same: boolean = tensors.add === tf.add && zod.z === z && zod.strictObject === z.strictObject;
     const plugin: Plugin = definePlugin({
       name: 'own', version: '2.0.0', llmx: '^0.1.0',
       config: z.strictObject({ limit: limit.default(3) }),
       setup(options, { log }) {
         log(JSON.stringify({ same, options, error: LlmxError.name }));
         return { hooks: { run() {} } };
       },
     });
     export default plugin;`,
  );
  const [, own] = await load({ name: file, limit: 5 });
  expect(own).toMatchObject({ name: 'own', version: '2.0.0', entry: file, options: { limit: 5 } });
  expect(own?.instance.hooks?.run).toBeTypeOf('function');
  expect(logged).toEqual(['info [plugin own 2.0.0] {"same":true,"options":{"limit":5},"error":"LlmxError"}']);
  expect((await load(file))[1]?.options).toEqual({ limit: 3 });
});

test('all problems of all plugins come at once', async () => {
  install('experiment', 'old', "export default { name: 'old', version: '1.0.0', llmx: '^9.0.0' };");
  install('experiment', 'throws', "throw new Error('no licence');");
  install('experiment', 'hooked', plain('hooked', 'setup: () => ({ hooks: { stepBegin() {} } })'));
  install('experiment', 'closed', plain('closed'), { exports: { './other': './plugin.js' } });
  install('experiment', 'moody', plain('moody', "setup() { throw new Error('not today'); }"));
  install('experiment', 'fine', plain('fine'));
  const broken = write('broken.ts', 'export default { name: };');
  const named = write('named.ts', "export const plugin = { name: 'named', version: '1.0.0', llmx: '*' };");
  expect(
    await problemsOf(
      'absent',
      './gone.ts',
      'old',
      'throws',
      'hooked',
      'closed',
      'moody',
      { name: 'fine', limit: 1 },
      broken,
      named,
    ),
  ).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_MISSING [plugin absent] is not installed: looked from <folder>/experiment and <folder>/cli. Run "npm install absent" in the folder of the configuration.",
      "LLMX_PLUGIN_MISSING [plugin ./gone.ts] does not exist. Paths under plugins are relative to the configuration that names them.",
      "LLMX_PLUGIN_VERSION [plugin old 1.0.0] needs @llmx/core ^9.0.0, and this is 0.1.0. Install a version of the plugin made for @llmx/core 0.1.0, or an llmx in the range ^9.0.0.",
      "LLMX_PLUGIN_FAILED [plugin throws] could not be imported: no licence. Repair or update the plugin, or remove it from plugins.",
      "LLMX_PLUGIN_INVALID [plugin closed] has no module to import: No "exports" main defined in <folder>/experiment/node_modules/closed/package.json. The exports of its package.json must name a file that exists; a plugin in development must be built first.",
      "LLMX_PLUGIN_FAILED [plugin <folder>/broken.ts] could not be imported: ParseError: Unexpected token <folder>/broken.ts:1:23. Repair or update the plugin, or remove it from plugins.",
      "LLMX_PLUGIN_INVALID [plugin <folder>/named.ts] is no plugin: its default export is missing. Its module must say: export default definePlugin({ ... }).",
      "LLMX_PLUGIN_INVALID [plugin hooked 1.0.0] has an unknown hook "stepBegin". Known: backendReady, batch, checkpointLoaded, checkpointSaved, error, evaluate, gradients, inspect, metrics, resolveConfig, run, stepEnd.",
      "LLMX_PLUGIN_FAILED [plugin moody 1.0.0] could not be set up: not today. Repair or update the plugin, or remove it from plugins.",
      "LLMX_CONFIG_UNKNOWN_KEY [plugin fine 1.0.0] There is no setting "plugins.7.limit". plugins.7 takes no settings.",
    ]
  `);
});

test('a package without a build step, and packages without a module', async () => {
  install('experiment', 'sources', '', { exports: './index.ts' });
  write(
    'experiment/node_modules/sources/index.ts',
    `import { z } from '@llmx/core';\n${plain('sources', 'config: z.strictObject({})')}`,
  );
  expect((await load('sources')).map(({ name }) => name)).toEqual(['@llmx/core', 'sources']);
  install('experiment', 'unbuilt', '', { exports: './dist/index.js' });
  install('experiment', 'older', '', { exports: undefined, main: './lib/index.js' });
  install('experiment', 'broken', '', {});
  write('experiment/node_modules/broken/package.json', '{,');
  const problems = await problemsOf('unbuilt', 'older', 'broken', 'node:fs');
  expect(problems.map((problem) => problem.replace(/ has no module to import: .*/, ''))).toEqual(
    ['unbuilt', 'older', 'broken', 'node:fs'].map((name) => `LLMX_PLUGIN_INVALID [plugin ${name}]`),
  );
});

test('options are checked against the schema of the plugin', async () => {
  const code = `import { definePlugin, z } from '@llmx/core';
    export default definePlugin({ name: 'guard', version: '1.0.0', llmx: '*', config: z.strictObject({ limit: z.number().gt(0) }) });`;
  expect(await problemsOf({ name: write('guard.ts', code), limit: -1, pateince: 2 })).toMatchInlineSnapshot(`
    [
      "LLMX_CONFIG_INVALID [plugin guard 1.0.0] plugins.0.limit is -1: expected more than 0. undefined",
      "LLMX_CONFIG_UNKNOWN_KEY [plugin guard 1.0.0] There is no setting "plugins.0.pateince". plugins.0 takes: limit.",
    ]
  `);
});

test('two plugins of one name, and two components of one kind and name', async () => {
  const twin = (name: string): string =>
    write(
      `${name}.ts`,
      `import { z } from '@llmx/core';
       const component = { kind: 'optimizer', name: 'sgd', summary: 'S.', config: z.strictObject({ lr: z.number() }), build() {} };
       export default { name: 'twin', version: '1.0.0', llmx: '*', components: [component] };`,
    );
  expect(await problemsOf(twin('a'), twin('b'))).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID Two plugins are called twin: <folder>/a.ts and <folder>/b.ts. Keep one of them.",
      "LLMX_COMPONENT_DUPLICATE [plugin @llmx/core 0.1.0] and [plugin twin 1.0.0] both register the optimizer "sgd". Rename one of the two components, or remove the plugin that brings it.",
    ]
  `);
});

test('a second copy of core or TensorFlow.js is refused before anything of it runs', async () => {
  install('experiment', 'plugin', "throw new Error('must not run');", { peerDependencies: { '@llmx/core': '^9.0.0' } });
  write('experiment/node_modules/@llmx/core/package.json', '{ "name": "@llmx/core", "version": "9.9.9" }');
  write(
    'experiment/node_modules/@tensorflow/tfjs-core/package.json',
    '{ "name": "@tensorflow/tfjs-core", "version": "3.0.0" }',
  );
  const [core, tensorflow, ...rest] = await problemsOf('plugin');
  expect(rest).toEqual([]);
  expect(core).toMatchInlineSnapshot(
    `"LLMX_CORE_DUPLICATE [plugin plugin] would load a second copy of @llmx/core: 9.9.9 in <folder>/experiment/node_modules/@llmx/core beside 0.1.0 in <core> (it asks for ^9.0.0). Install llmx and all its plugins in one folder, in versions that fit together, and run llmx from there."`,
  );
  expect(tensorflow).toContain(
    'would load a second copy of @tensorflow/tfjs-core: 3.0.0 in <folder>/experiment/node_modules',
  );
});

test('one copy under several links is one copy', async () => {
  install('experiment', 'plugin', plain('plugin'));
  mkdirSync(join(folder, 'experiment/node_modules/@llmx'));
  symlinkSync(CORE_FOLDER, join(folder, 'experiment/node_modules/@llmx/core'));
  expect((await load('plugin')).map(({ name }) => name)).toEqual(['@llmx/core', 'plugin']);
});
