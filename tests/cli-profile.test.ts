import fs from 'node:fs';
import path from 'node:path';

import { describe, test } from 'vitest';

import { gives, prints, refusal, useTemplate, workspace } from './support/cli-workspace.ts';

useTemplate();

describe.concurrent('profile', () => {
  test('prints where the time of a step goes, and makes no run', async ({ expect }) => {
    const folder = workspace('data', 'tiny.yaml');
    const before = fs.readdirSync(folder);
    const printed = await prints(folder, 'profile', 'tiny.yaml', '--steps', '2', '--trace', 'trace.json');
    const lines = printed.split('\n');
    expect(lines[0]).toBe('2 steps of 32 tokens on cpu, means after 2 to warm up');
    expect(lines[1]).toMatch(/^at best {2}memory [\d.]+ GB\/s, arithmetic [\d.]+ GFLOP\/s: measured with 1 thread$/);
    expect(lines.find((line) => line.startsWith('kernel '))).toMatch(/ms +share +MB +GB\/s +GFLOP\/s +reaches$/);
    expect(lines.find((line) => line.startsWith('BatchMatMul '))).toMatch(/% of (arithmetic|memory)$/);
    expect(lines.find((line) => line.startsWith('others ('))).toMatch(/^others \(\d+ kernels?\) /);
    for (const start of ['sum of kernels ', 'outside kernels (JavaScript, tape) ', 'step '])
      expect(lines.some((line) => line.startsWith(start))).toBe(true);
    expect(printed).toMatch(/^phases {3}forward [\d.]+ ms {2}backward [\d.]+ ms {2}optimizer [\d.]+ ms$/m);
    expect(printed).toMatch(/^speed {4}[\d,]+ tokens\/s$/m);
    expect(printed).toContain('Trace in trace.json: open it in https://ui.perfetto.dev or chrome://tracing.\n');
    expect(fs.readdirSync(folder)).toEqual([...before, 'trace.json'].toSorted());
    const trace = JSON.parse(fs.readFileSync(path.join(folder, 'trace.json'), 'utf8')) as { traceEvents: object[] };
    expect(trace.traceEvents.length).toBeGreaterThan(10);
  });

  test('as JSON, with every kernel', async ({ expect }) => {
    const folder = workspace('data', 'tiny.yaml');
    const flags = ['--steps', '1', '--warmup', '0', '--set', 'backend=wasm', '--set', 'train.batchSize=3'];
    const result = await gives(folder, 'profile', 'tiny.yaml', ...flags);
    expect(result).toMatchObject({ backend: 'wasm', steps: 1, warmup: 0, tokensPerStep: 48, trace: null });
    const kernels = result['kernels'] as { kernel: string; milliseconds: number }[];
    const total = kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    expect(total).toBeLessThan(Number(result['stepMilliseconds']));
    expect(kernels.map(({ kernel }) => kernel)).toEqual(expect.arrayContaining(['LlmxMatmul', 'LlmxLinear']));
  });

  test('all kernels, for people', async ({ expect }) => {
    const folder = workspace('data', 'tiny.yaml');
    const printed = await prints(folder, 'profile', 'tiny.yaml', '--steps', '1', '--warmup', '0', '--all');
    expect(printed).not.toContain('others (');
    expect(printed.split('\n')[0]).toBe('1 step of 32 tokens on cpu, means after 0 to warm up');
  });

  test('mistakes', async ({ expect }) => {
    const folder = workspace('data', 'tiny.yaml');
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--steps', '0'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      --steps is "0"; it must be an integer of at least 1 and at most 1000.
      \`llmx profile --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--warmup', '-1'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      --warmup is "-1"; it must be an integer of at least 0 and at most 1000.
      \`llmx profile --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--trace'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      Flag --trace expects a value.
      \`llmx profile --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--name', 'a'])).toMatchInlineSnapshot(`
      "LLMX_USAGE
      The command "profile" has no flag "--name".
      \`llmx profile --help\` shows what it takes."
    `);
    expect(await refusal(folder, ['profile', '--trace', 'tiny.yaml'])).toContain('LLMX_CONFIG_MISSING');
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--trace', 'tiny.yaml'])).toMatchInlineSnapshot(`
      "LLMX_OUTPUT_EXISTS
      There is a file at "<folder>/tiny.yaml" already, and it is not a trace.
      Give the trace another name."
    `);
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--trace', 'no/trace.json'])).toMatchInlineSnapshot(`
      "LLMX_IO_FAILED
      Could not write "<folder>/no/trace.json": no such file or directory (ENOENT).
      Check that the path is right and that its permissions allow this."
    `);
    expect(await refusal(folder, ['profile', 'tiny.yaml', '--set', 'backend=wasn'])).toMatchInlineSnapshot(`
      "LLMX_COMPONENT_UNKNOWN
      There is no backend "wasn".
      Did you mean "wasm"?"
    `);
    const missing = ['profile', 'tiny.yaml', '--set', 'data.train=nowhere'];
    expect(await refusal(folder, missing)).toContain('LLMX_DATASET_MISSING');
  });
});
