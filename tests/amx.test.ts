// Level `amx` on machines without it: the engine in a build whose tile instructions are a model of Intel's manual
// (native/kernels/amx.h), and in one where they compute something else.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, describe, expect, test } from 'vitest';

import { buildEngine, buildLibrary, findCompiler } from '../packages/backend-native/native/build.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const compiler = process.arch === 'x64' ? findCompiler() : undefined;
const MISSING = 'needs an x86-64 machine with a C++ compiler';
const LIMIT = 5 * 60_000;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-amx-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

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

describe('tile registers', () => {
  test('products in them are those of the reference', { timeout: LIMIT }, async ({ skip }) => {
    skip(compiler === undefined, MISSING);
    const { output } = await buildEngine({ compiler, amxModel: 'exact' });
    expect(line(output)).toBe('C++ kernels, amx, 2 threads');
    expect(line(output, { LLMX_NATIVE_ISA: 'portable' })).toBe('C++ kernels, portable, 2 threads');
    const kernels = ['matmul', 'cross-entropy', 'attention', 'bfloat16'].map(
      (name) => `packages/backend-native/src/kernels/${name}.test.ts`,
    );
    run(output, ['node_modules/vitest/vitest.mjs', 'run', ...kernels], { LLMX_TEST_ISA: 'amx' });
  });

  test('a processor that multiplies otherwise is found out', { timeout: LIMIT }, async ({ skip }) => {
    skip(compiler === undefined, MISSING);
    const { output } = await buildEngine({ compiler, amxModel: 'faulty' });
    const warning = 'amx is not used: its products differ from the reference kernel';
    expect(line(output)).toBe(`C++ kernels, avx512-bf16, 2 threads (${warning})`);
    const report = run(output, ['packages/cli/bin/llmx.js', 'doctor']);
    expect(report).toContain('avx512-bf16; the machine has amx\n');
    expect(report).toMatch(new RegExp(`warning +${warning}\n`));
  });

  test('a compiler that does not know them leaves the level out', async ({ skip }) => {
    skip(compiler === undefined, MISSING);
    skip(process.platform !== 'linux', 'needs a shell script in place of the compiler');
    const command = path.join(folder, 'older');
    const script = `#!/bin/sh\ncase "$*" in *-mamx*) exit 1 ;; esac\nexec ${compiler!.command} "$@"\n`;
    fs.writeFileSync(command, script, { mode: 0o755 });
    const source = path.join(folder, 'tiny.cpp');
    fs.writeFileSync(
      source,
      '#include "llmx/kernel.h"\nnamespace llmx::LLMX_ISA_NAME { LLMX_KERNEL(Tiny) { return 0; } }',
    );
    const levelsWith = async (used: string): Promise<number> => {
      const cache = path.join(folder, `objects-${path.basename(used)}`);
      const lists = { kernels: [source], products: ['tiny.cpp'], tiled: ['tiny.cpp'] };
      const output = path.join(folder, 'tiny.so');
      await buildLibrary({ ...lists, output, cache, compiler: { command: used, version: used } });
      return fs.readdirSync(cache).filter((file) => file.startsWith('tiny-')).length;
    };
    expect(await levelsWith(command)).toBe((await levelsWith(compiler!.command)) - 1);
  });
});
