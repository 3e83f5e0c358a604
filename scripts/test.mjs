// `npm test`: set-up, then every test; further arguments go to vitest (`npm test -- golden`). The last line counts test
// cases. --all: with the long sweeps, which ask for LLMX_TEST_ALL. --faults: the fault tests alone, in full.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const args = process.argv.slice(2);
/** What vitest gets in the place of our own flags. */
const SUITES = { '--all': [], '--faults': ['tests/faults-', '--maxConcurrency=8'] };

function run(script, scriptArgs, env = process.env) {
  const { status, signal } = spawnSync(process.execPath, [path.join(root, script), ...scriptArgs], {
    cwd: root,
    env,
    stdio: 'inherit',
  });
  return { ok: status === 0, end: signal ?? `exit status ${status}` };
}

/** Prints the one closing line and ends with the status that goes with it. */
function close({ passed, failed, skipped }) {
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  process.exit(failed > 0 ? 1 : 0);
}

function readCounts(file) {
  return fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : { passed: 0, failed: 0, skipped: 0 };
}

function runTests(folder) {
  const file = path.join(folder, 'counts.json');
  const all = args.includes('--all') ? { LLMX_TEST_ALL: '1' } : {};
  const faults = args.includes('--faults') ? { LLMX_TEST_FAULTS: '1' } : {};
  const env = { ...process.env, LLMX_TEST_COUNTS: file, ...all, ...faults };
  const reporters = ['--reporter=default', '--reporter=./scripts/test-reporter.mjs'];
  const vitestArgs = ['run', '--typecheck', ...reporters, ...args.flatMap((arg) => SUITES[arg] ?? [arg])];
  const { ok, end } = run('node_modules/vitest/vitest.mjs', vitestArgs, env);
  const counts = readCounts(file);
  // vitest died, or found nothing to run.
  if (!ok && counts.failed === 0) {
    console.error(`vitest ended with ${end} though no test case failed.`);
    counts.failed = 1;
  }
  return counts;
}

if (!run('scripts/setup.mjs', ['--quiet']).ok) close({ passed: 0, failed: 1, skipped: 0 });
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-test-'));
const counts = runTests(folder);
fs.rmSync(folder, { recursive: true, force: true });
close(counts);
