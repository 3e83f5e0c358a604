// The tests of the C++ kernels once more, in a build that checks every address and every operation that is not defined. Takes
// minutes: `npm run test:all`.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { buildEngine, findCompiler } from '../packages/backend-native/native/build.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const LIMIT = 20 * 60_000;

/** The run-time libraries of the checks, which must be loaded before Node's own. */
function runtimes(compiler: string): string[] {
  const found = ['libasan.so', 'libubsan.so'].map((file) =>
    spawnSync(compiler, [`-print-file-name=${file}`], { encoding: 'utf8' }).stdout.trim(),
  );
  return found.filter((file) => file.includes('/'));
}

test('kernels touch no memory but their own and do nothing undefined', { timeout: LIMIT }, async ({ skip }) => {
  skip(process.env['LLMX_TEST_ALL'] === undefined, 'takes minutes; `npm run test:all` runs it');
  const compiler = findCompiler();
  skip(compiler === undefined || process.platform !== 'linux', 'needs g++ or clang++ on Linux');
  const preload = runtimes(compiler!.command);
  skip(preload.length === 0, `${compiler!.command} brings no sanitizers`);
  const { output } = await buildEngine({ compiler, sanitize: true });
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', 'packages/backend-native/src/kernels', '--testTimeout=600000'],
    {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
      env: {
        ...process.env,
        LLMX_NATIVE_LIBRARY: output,
        LD_PRELOAD: preload.join(':'),
        // Node itself leaks at its end, by intent.
        ASAN_OPTIONS: 'detect_leaks=0',
        UBSAN_OPTIONS: 'print_stacktrace=1',
      },
    },
  );
  const text = `${stdout}\n${stderr}`;
  expect(text).not.toMatch(/AddressSanitizer|runtime error:/);
  expect(status, text.slice(-4000)).toBe(0);
});
