import { expect, test } from 'vitest';
import { z } from 'zod';

import { instanceProblems, pluginProblems } from './check-plugin.ts';
import { defineBlock, defineOptimizer, definePlugin } from './define.ts';
import type { Plugin } from './plugin-types.ts';

const sgd = defineOptimizer({
  name: 'sgd',
  summary: 'Plain descent.',
  config: z.strictObject({ lr: z.number().default(0.1) }),
  build: () => ({ init: () => 0, update: ({ params, state }) => ({ params, state }) }),
});
const good = definePlugin({
  name: '@scope/plugin',
  version: '1.2.3',
  llmx: '^0.1.0',
  components: [sgd],
  config: z.strictObject({ limit: z.number().default(1) }),
  setup: () => ({}),
});

const problemsOf = (exported: unknown, coreVersion = '0.1.0'): string[] =>
  pluginProblems(exported, 'entry', coreVersion).map(({ code, message, hint }) => `${code} ${message} (${hint})`);

const withComponent = (changes: object): string[] => problemsOf({ ...good, components: [{ ...sgd, ...changes }] });

test('a sound plugin has no problems', () => {
  expect(problemsOf(good)).toEqual([]);
  expect(problemsOf({ name: 'bare', version: '0.0.1-beta.1', llmx: '*' })).toEqual([]);
});

test('prereleases of core count', () => {
  expect(problemsOf(good, '0.1.1-next.0')).toEqual([]);
  expect(problemsOf({ ...good, llmx: '^0.2.0' }, '0.2.0-next.0')).toHaveLength(1);
});

test.each([undefined, null, 3, [good], () => good])('%o is no plugin', (exported) => {
  expect(problemsOf(exported)).toHaveLength(1);
});

test('everything wrong with a definition at once', () => {
  expect(
    problemsOf({ name: 'my plugin', version: 'latest', llmx: 'new', hooks: {}, components: {}, config: {}, setup: 1 }),
  ).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has an unknown key "hooks" in definePlugin. (Known: components, config, llmx, name, setup, version.)",
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has the name "my plugin". (Its name is text without spaces, best that of its npm package.)",
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has the version "latest". (Its version is of the form 1.2.3.)",
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has the llmx range "new". (Give the versions of @llmx/core that it works with, e.g. llmx: "^0.1.0".)",
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has options of its own whose config is an object. (Write it as z.strictObject({ ... }), with z from @llmx/core.)",
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has components that are an object. (Write them as a list: components: [ ... ].)",
      "LLMX_PLUGIN_INVALID [plugin my plugin latest] has a setup that is no function. (setup is a synchronous function that returns { hooks, saveState, loadState }, each of them optional; hooks is an object.)",
    ]
  `);
  expect(problemsOf(undefined)).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin entry] is no plugin: its default export is missing. (Its module must say: export default definePlugin({ ... }).)",
    ]
  `);
  expect(problemsOf({ ...good, llmx: '^1.0.0' })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_VERSION [plugin @scope/plugin 1.2.3] needs @llmx/core ^1.0.0, and this is 0.1.0. (Install a version of the plugin made for @llmx/core 0.1.0, or an llmx in the range ^1.0.0.)",
    ]
  `);
});

test('components', () => {
  expect(withComponent({ kind: 'optimiser' })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has a component "sgd" of the unknown kind "optimiser". (Did you mean "optimizer"?)",
    ]
  `);
  expect(withComponent({ name: 'SGD', summary: '', paper: 1, build: 0, sumary: 'x' })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has an unknown key "sumary" in the optimizer "SGD". (Did you mean "summary"?)",
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "SGD" with an unusable name. (Names are lower-case words joined by "-".)",
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "SGD" without a summary. (A summary is one line for "llmx components".)",
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "SGD" whose paper is no text. (Give the address of the paper, or leave it out.)",
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "SGD" without a build function. (build(config, context) gives what the component is.)",
    ]
  `);
  expect(problemsOf({ ...good, components: [null] })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has a component 0 that is of type null. (Make it with define<Kind>({ ... }).)",
    ]
  `);
});

test('schemas', () => {
  const lr = z.number();
  expect(withComponent({ config: undefined })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "sgd" whose config is missing. (Write it as z.strictObject({ ... }), with z from @llmx/core.)",
    ]
  `);
  expect(withComponent({ config: z.object({ lr }) })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "sgd" whose config accepts any key. (Write it as z.strictObject({ ... }), so that typing errors are found.)",
    ]
  `);
  expect(withComponent({ config: z.strictObject({ name: z.string() }) })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "sgd" with an option "name", which means something else there. (Rename the option.)",
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "sgd" without the option "lr". (Every optimizer has a learning rate: lr: z.number().)",
    ]
  `);
  expect(withComponent({ config: z.strictObject({ lr, a: z.string().transform(Number) }) })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the optimizer "sgd" whose config cannot become a JSON Schema: it transforms values. (Its config becomes a JSON Schema: use plain data, without transforms, dates or functions.)",
    ]
  `);
  expect(withComponent({ config: z.strictObject({ lr, a: z.preprocess(Number, z.number()) }) })).toHaveLength(1);
  expect(withComponent({ config: z.strictObject({ lr, a: z.date() }) })).toHaveLength(1);
  expect(withComponent({ config: z.strictObject({ lr }).refine(() => true) })).toEqual([]);
  const block = defineBlock({
    name: 'b',
    summary: 'B.',
    config: z.strictObject({ repeat: lr }),
    build: () => ({}) as never,
  });
  expect(problemsOf({ ...good, components: [block] })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has the block "b" with an option "repeat", which means something else there. (Rename the option.)",
    ]
  `);
});

test("a plugin's own options stand beside its name", () => {
  expect(problemsOf({ ...good, config: z.strictObject({ name: z.string() }) })).toMatchInlineSnapshot(`
    [
      "LLMX_PLUGIN_INVALID [plugin @scope/plugin 1.2.3] has options of its own with an option "name", which means something else there. (Rename the option.)",
    ]
  `);
});

test('a schema of zod 3 has no zod 4 internals', () => {
  expect(withComponent({ config: { _def: {}, safeParse: () => ({ success: true }) } })).toHaveLength(1);
});

test('what setup returns', () => {
  const instance = (value: unknown): string[] =>
    instanceProblems(value, good as Plugin).map(({ message, hint }) => `${message} (${hint})`);
  expect(instance({})).toEqual([]);
  expect(instance({ hooks: { stepEnd: { every: 2, order: 'pre', handler() {} }, run() {} } })).toEqual([]);
  expect(instance({ saveState: () => 1, loadState() {} })).toEqual([]);
  expect(instance(Promise.resolve({}))).toMatchInlineSnapshot(`
    [
      "[plugin @scope/plugin 1.2.3] returned a promise from setup. (setup is a synchronous function that returns { hooks, saveState, loadState }, each of them optional; hooks is an object.)",
    ]
  `);
  expect(instance({ stepEnd() {}, saveState: () => 1, hooks: [] })).toMatchInlineSnapshot(`
    [
      "[plugin @scope/plugin 1.2.3] has an unknown key "stepEnd" in what setup returns. (Known: hooks, loadState, saveState.)",
      "[plugin @scope/plugin 1.2.3] has saveState without loadState. (A resumed run needs both: one gives what the other takes back.)",
      "[plugin @scope/plugin 1.2.3] has hooks that are a list. (setup is a synchronous function that returns { hooks, saveState, loadState }, each of them optional; hooks is an object.)",
    ]
  `);
  expect(
    instance({
      hooks: {
        stepend() {},
        run: { every: 2, handler() {} },
        batch: { every: 0, handler() {} },
        metrics: { every: 1.5, order: 'first', handler() {} },
        inspect: { handle() {} },
        error: 'log',
      },
    }),
  ).toMatchInlineSnapshot(`
    [
      "[plugin @scope/plugin 1.2.3] has an unknown hook "stepend". (Did you mean "stepEnd"?)",
      "[plugin @scope/plugin 1.2.3] has the run hook with every: 2, which has no effect there. (Remove every.)",
      "[plugin @scope/plugin 1.2.3] has the batch hook with every: 0. (every is a number of steps, at least 1.)",
      "[plugin @scope/plugin 1.2.3] has the metrics hook with the order "first". (The order is pre or post; leave it out for neither.)",
      "[plugin @scope/plugin 1.2.3] has the metrics hook with every: 1.5. (every is a number of steps, at least 1.)",
      "[plugin @scope/plugin 1.2.3] has the inspect hook whose handler is no function. (Give a function, or { handler, order, every }.)",
      "[plugin @scope/plugin 1.2.3] has the error hook whose handler is no function. (Give a function, or { handler, order, every }.)",
    ]
  `);
});
