import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

const program = fileURLToPath(new URL('../../scripts/tfjs-specs.mjs', import.meta.url));
/** The specs of tfjs-core 4.22.0 that apply to a backend in Node; fewer means that the bundle has lost some. */
const SPECS = 4227;
/** Milliseconds after which a run hangs: it takes three seconds on an idle machine. */
const LIMIT = 90_000;
/** Failures, or lines of the log, that are shown. */
const SHOWN = 20;

interface Result {
  readonly unavailable?: string;
  readonly passed: number;
  readonly failures: readonly { readonly name: string; readonly messages: readonly string[] }[];
}

const tail = (log: string): string => log.trimEnd().split('\n').slice(-SHOWN).join('\n');

/** Runs the specs in a process of their own; returns what it tells on its last line. */
async function runSpecs(backend: string): Promise<Result> {
  // The C++ engine overwrites memory that is given back: whatever still reads it fails.
  const env = { ...process.env, LLMX_NATIVE_DEBUG: '1' };
  const child = spawn(process.execPath, [program, backend], { env, timeout: LIMIT, killSignal: 'SIGKILL' });
  const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  const [stdout, stderr, [status, killedBy]] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  const line = stdout.trimEnd().split('\n').at(-1) ?? '';
  if (killedBy === null && line.startsWith('{')) return JSON.parse(line) as Result;
  // It crashed or was stopped at the limit. Its last lines say in which spec.
  throw new Error(`The specs ended with ${killedBy ?? `exit status ${status}`}. The end of the log:\n${tail(stderr)}`);
}

/** The failures by name with their messages, as far as one can read them. */
function describeFailures(failures: Result['failures']): string {
  const shown = failures.slice(0, SHOWN).map(({ name, messages }) => `${name}\n  ${messages.join('\n  ')}`);
  return [`${failures.length} failed:`, ...shown, ...(failures.length > SHOWN ? ['...'] : [])].join('\n');
}

test.for(['cpu', 'native'])('tfjs-core specs on %s', { timeout: LIMIT + 10_000 }, async (backend, { skip }) => {
  const { unavailable, passed, failures } = await runSpecs(backend);
  skip(unavailable !== undefined, unavailable);
  console.log(`tfjs-core specs on ${backend}: ${passed} passed`);
  expect(failures.length, describeFailures(failures)).toBe(0);
  expect(passed).toBeGreaterThanOrEqual(SPECS);
});
