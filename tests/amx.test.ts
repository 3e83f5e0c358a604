// Level `amx` on machines without it: the engine in a build whose tile instructions are a model of Intel's manual
// (native/kernels/amx.h), and in one where they compute something else.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';

import { buildEngine, findCompiler } from '../packages/backend-native/native/build.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const compiler = process.arch === 'x64' ? findCompiler() : undefined;
const LIMIT = 5 * 60_000;

/** What Node prints, run with that engine. */
function run(library: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...environment, LLMX_NATIVE_LIBRARY: library },
  });
  expect(status, `${stdout}\n${stderr}`.slice(-4000)).toBe(0);
  return stdout;
}

/** The backend's line about itself. */
const line = (library: string, environment?: Readonly<Record<string, string>>): string => {
  const script = `console.log(await (await import('@llmx/backend-native')).registerNativeBackend({ threads: 2 }))`;
  return run(library, ['--input-type=module', '--eval', script], environment).trim();
};

describe.skipIf(compiler === undefined)('tile registers', () => {
  test('products in them are those of the reference', { timeout: LIMIT }, async () => {
    const { output } = await buildEngine({ compiler, amxModel: 'exact' });
    expect(line(output)).toBe('C++ kernels, amx, 2 threads');
    expect(line(output, { LLMX_NATIVE_ISA: 'portable' })).toBe('C++ kernels, portable, 2 threads');
    const kernels = ['matmul', 'cross-entropy', 'bfloat16'].map(
      (name) => `packages/backend-native/src/kernels/${name}.test.ts`,
    );
    run(output, ['node_modules/vitest/vitest.mjs', 'run', ...kernels], { LLMX_TEST_ISA: 'amx' });
  });

  test('a processor that multiplies otherwise is found out', { timeout: LIMIT }, async () => {
    const { output } = await buildEngine({ compiler, amxModel: 'faulty' });
    const warning = 'amx is not used: its products differ from the reference kernel';
    expect(line(output)).toBe(`C++ kernels, avx512-bf16, 2 threads (${warning})`);
    const report = run(output, ['packages/cli/bin/llmx.js', 'doctor']);
    expect(report).toContain('avx512-bf16; the machine has amx\n');
    expect(report).toMatch(new RegExp(`warning +${warning}\n`));
  });
});
