import { expect, test } from 'vitest';

import { LlmxError, LlmxProblems } from '../errors/index.ts';
import { HookDriver, type HookOwner } from './hook-driver.ts';
import type { HookTable } from './plugin-types.ts';

const plugin = (name: string, hooks: HookTable): HookOwner => ({ name, version: '1.0.0', hooks });
const at = (step: number) => ({ step, tokensSeen: step * 10 });

/** What `run` throws, or undefined. */
async function failureOf(run: () => unknown): Promise<unknown> {
  try {
    await run();
  } catch (error) {
    return error;
  }
  return undefined;
}

const boom = (text: string) => () => {
  throw new Error(text);
};

test('pre, then the order of the configuration, then post', async () => {
  const seen: string[] = [];
  const named = (name: string, order?: 'pre' | 'post') => {
    const handler = () => void seen.push(name);
    return plugin(name, { stepEnd: order === undefined ? handler : { order, handler } });
  };
  const driver = new HookDriver([named('a', 'post'), named('b'), named('c', 'pre'), named('d'), plugin('e', {})]);
  await driver.series('stepEnd', { ...at(1), metrics: {} });
  expect(seen).toEqual(['c', 'b', 'd', 'a']);
  expect(driver.order('stepEnd')).toEqual(seen);
  expect(driver.order('run')).toEqual([]);
});

test('every counts steps from 1, and metrics are needed only where a handler runs', async () => {
  const steps: number[] = [];
  const driver = new HookDriver([plugin('a', { stepEnd: { every: 3, handler: ({ step }) => void steps.push(step) } })]);
  for (let step = 1; step <= 7; step++) await driver.series('stepEnd', { ...at(step), metrics: {} });
  expect(steps).toEqual([3, 6]);
  expect([1, 2, 3, 6].map((step) => driver.takesPart('stepEnd', step))).toEqual([false, false, true, true]);
  expect(new HookDriver([]).takesPart('stepEnd', 3)).toBe(false);
});

test('a waterfall passes the value on; nothing returned keeps it', async () => {
  const add = (name: string) =>
    plugin(name, { metrics: (metrics) => ({ ...metrics, [name]: Object.keys(metrics).length }) });
  const driver = new HookDriver([add('a'), plugin('b', { metrics: () => undefined }), add('c')]);
  expect(driver.waterfallSync('metrics', { loss: 1 }, at(1))).toEqual({ loss: 1, a: 1, c: 2 });
  const resolve = new HookDriver([
    plugin('a', { resolveConfig: async (config) => ({ ...config, a: 1 }) }),
    plugin('b', { resolveConfig: () => undefined }),
    plugin('c', { resolveConfig: (config) => ({ ...config, c: Object.keys(config).length }) }),
  ]);
  expect(await resolve.waterfall('resolveConfig', { x: 0 })).toEqual({ x: 0, a: 1, c: 2 });
});

test('inspected values come together, and one name belongs to one plugin', () => {
  const tensor = {} as never;
  const reports = (name: string, key: string) => plugin(name, { inspect: () => ({ [key]: tensor }) });
  const args = { ...at(2), params: {}, grads: {} };
  const driver = new HookDriver([reports('a', 'x'), plugin('b', { inspect: () => undefined }), reports('c', 'y')]);
  expect(Object.keys(driver.collectSync('inspect', args))).toEqual(['x', 'y']);
  const clash = new HookDriver([reports('a', 'x'), reports('b', 'x')]);
  expect(() => clash.collectSync('inspect', args)).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: [plugin a 1.0.0] and [plugin b 1.0.0] both report "x" from the inspect hook.]`,
  );
});

test('a failure names the plugin, the hook and the step, and stops the series', async () => {
  let reached = false;
  const driver = new HookDriver([
    plugin('a', { stepEnd: boom('out of\n ideas.') }),
    plugin('b', { stepEnd: () => void (reached = true) }),
  ]);
  const error = await failureOf(() => driver.series('stepEnd', { ...at(7), metrics: {} }));
  expect(error).toMatchObject({ code: 'LLMX_HOOK_FAILED', plugin: 'a', cause: { message: 'out of\n ideas.' } });
  expect(String(error)).toMatchInlineSnapshot(
    `"LlmxError: [plugin a 1.0.0] the stepEnd hook failed at step 7: out of ideas."`,
  );
  expect(reached).toBe(false);
});

test('an error of llmx keeps its code and gets the plugin', async () => {
  const stop = () => {
    throw new LlmxError('LLMX_DIVERGED', 'The loss is infinite.');
  };
  const driver = new HookDriver([plugin('a', { gradients: stop, resolveConfig: stop })]);
  expect(await failureOf(() => driver.waterfallSync('gradients', {}, at(1)))).toMatchObject({
    code: 'LLMX_DIVERGED',
    plugin: 'a',
  });
  expect(await failureOf(() => driver.waterfall('resolveConfig', {}))).toMatchObject({
    code: 'LLMX_DIVERGED',
    plugin: 'a',
  });
});

test('a promise inside the step is refused, also one that fails', async () => {
  const asynchronous = async () => boom('later')();
  const driver = new HookDriver([plugin('a', { gradients: asynchronous as never })]);
  const error = await failureOf(() => driver.waterfallSync('gradients', {}, at(3)));
  expect(error).toMatchObject({ code: 'LLMX_HOOK_ASYNC', plugin: 'a' });
  expect(String(error)).toMatchInlineSnapshot(
    `"LlmxError: [plugin a 1.0.0] the gradients hook returned a promise at step 3."`,
  );
});

test('a bracket takes everything back, last first', async () => {
  const seen: string[] = [];
  const bracketed = (name: string) =>
    plugin(name, {
      evaluate: ({ step }) => {
        seen.push(`${name} at ${step}`);
        return () => void seen.push(`undo ${name}`);
      },
    });
  const driver = new HookDriver([bracketed('a'), plugin('b', { evaluate: () => undefined }), bracketed('c')]);
  const result = await driver.bracket('evaluate', [at(4)], async () => {
    seen.push('body');
    return 42;
  });
  expect(result).toBe(42);
  expect(seen).toEqual(['a at 4', 'c at 4', 'body', 'undo c', 'undo a']);
});

test('a bracket takes back what was done before a failure', async () => {
  const seen: string[] = [];
  const driver = new HookDriver([
    plugin('a', { run: () => () => void seen.push('undo a') }),
    plugin('b', { run: boom('no device') }),
    plugin('c', { run: () => void seen.push('c') }),
  ]);
  const error = await failureOf(() => driver.bracket('run', [], async () => void seen.push('body')));
  expect(String(error)).toMatchInlineSnapshot(`"LlmxError: [plugin b 1.0.0] the run hook failed: no device."`);
  expect(seen).toEqual(['undo a']);
});

test('failures of a body and of undos are told together, the first one first', async () => {
  const undoFails = (name: string) => plugin(name, { run: () => boom(`${name} stuck`) });
  const driver = new HookDriver([undoFails('a'), undoFails('b')]);
  const interrupted = await failureOf(() =>
    driver.bracket('run', [], async () => {
      throw new LlmxError('LLMX_INTERRUPTED', 'Stopped at step 3.');
    }),
  );
  expect(interrupted).toBeInstanceOf(LlmxProblems);
  expect(interrupted).toMatchObject({ code: 'LLMX_INTERRUPTED' });
  expect(String(interrupted)).toMatchInlineSnapshot(`
    "LlmxError: Stopped at step 3.
    [plugin b 1.0.0] the undo of the run hook failed: b stuck.
    [plugin a 1.0.0] the undo of the run hook failed: a stuck."
  `);
  const broken = new TypeError('x is undefined');
  const error = await failureOf(() => driver.bracket('run', [], () => Promise.reject(broken)));
  expect(error).toBeInstanceOf(AggregateError);
  expect(error).toMatchObject({
    cause: broken,
    errors: [broken, { code: 'LLMX_HOOK_FAILED' }, { code: 'LLMX_HOOK_FAILED' }],
  });
  expect(await failureOf(() => new HookDriver([]).bracket('run', [], () => Promise.reject(broken)))).toBe(broken);
});

test('an undo must be a function', async () => {
  const driver = new HookDriver([plugin('a', { run: (() => 'done') as never })]);
  expect(String(await failureOf(() => driver.bracket('run', [], async () => 1)))).toMatchInlineSnapshot(
    `"LlmxError: [plugin a 1.0.0] the run hook returned a value of type string."`,
  );
});

test('a failure of the run reaches every error hook and is never lost', async () => {
  const seen: unknown[] = [];
  const original = new LlmxError('LLMX_DIVERGED', 'The loss is infinite.');
  const driver = new HookDriver([
    plugin('a', { error: boom('pager is down') }),
    plugin('b', { error: ({ error }) => void seen.push(error) }),
  ]);
  expect(await driver.failed(original)).toMatchObject({ code: 'LLMX_DIVERGED', problems: [original, { plugin: 'a' }] });
  expect(seen).toEqual([original]);
  expect(await new HookDriver([]).failed(original)).toBe(original);
});
