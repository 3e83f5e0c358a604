import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { nativeUnavailable } from '@llmx/backend-native';

import { llmx, start } from './support/llmx.ts';

const STEPS = 40;
const ALL = process.env['LLMX_TEST_ALL'] !== undefined;

/**
 * What is killed, how often at least, and how often at least within the writing of a checkpoint. On the C++ engine each
 * start uses another number of threads.
 */
const CASES = [
  { optimizer: 'adamw', precision: 'fp32', backend: 'wasm', kills: ALL ? 20 : 8, inCheckpoints: ALL ? 3 : 1 },
  { optimizer: 'adamw', precision: 'fp32', backend: 'native', kills: ALL ? 20 : 12, inCheckpoints: ALL ? 3 : 2 },
  {
    optimizer: 'adamw-schedulefree',
    precision: 'bf16',
    backend: 'native',
    kills: ALL ? 20 : 8,
    inCheckpoints: ALL ? 3 : 1,
  },
];
const missing = nativeUnavailable();

// Dropout and accumulation, since both are easily lost on resume; wide enough that writing a checkpoint takes a while.
const config = ({ optimizer, precision, backend }: (typeof CASES)[number]) => `
${optimizer === 'adamw' ? '' : "plugins: ['@llmx/plugin-schedulefree']"}
data: { train: data }
model:
  dModel: 192
  contextLength: 16
  blocks: [{ block: attention, repeat: 2, heads: 4, dropout: 0.1 }]
optimizer: { name: ${optimizer}, lr: 0.003 }
schedule: { name: constant, warmup: 5 }
train: { steps: 1000, batchSize: 2, gradAccumulation: 2, evalEvery: 10, evalTokens: 64, checkpointEvery: 4, logEvery: 1 }
backend: ${backend}
precision: ${precision}
`;
const ARGUMENTS = ['--set', `train.steps=${STEPS}`, '--json'];
const threads = (backend: string, attempt: number): string[] =>
  backend === 'native' ? ['--set', `backend={name: native, threads: ${1 + (attempt % 3)}}`] : [];

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'llmx-resume-'));
  for (let file = 0; file < 8; file++)
    writeFileSync(
      join(folder, `${file}.txt`),
      Array.from({ length: 40 }, (_, line) => `${line * file} sheep and ${line} goats`).join('\n'),
    );
  const modules = join(folder, 'node_modules/@llmx');
  mkdirSync(modules, { recursive: true });
  symlinkSync(
    fileURLToPath(new URL('../packages/plugin-schedulefree', import.meta.url)),
    join(modules, 'plugin-schedulefree'),
  );
  const { status, stderr } = await llmx(folder, 'data', 'prepare', '.', '--out', 'data', '--tokenizer', 'bytes');
  if (status !== 0) throw new Error(stderr);
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true }));

/** The last line of standard output, as JSON. */
const lastJson = ({ stdout }: { stdout: string }): Record<string, unknown> =>
  JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as Record<string, unknown>;

const checkpoints = (name: string) => join(folder, 'runs', name, 'checkpoints');
const last = `step-${String(STEPS).padStart(8, '0')}`;

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Everything that must come out the same: the final checkpoint's tensors and the metrics, times and memory aside. */
function outcome(name: string): Record<string, string> {
  const file = (path: string) => readFileSync(join(folder, 'runs', name, path));
  const tensors = ['model', 'optimizer', 'plugins'].map((group) => `${group}.safetensors`);
  const lines = file('metrics.jsonl').toString().trimEnd().split('\n');
  const metrics = lines.map((line) => {
    const { tokensPerSecond: _speed, memoryMiB: _memory, ...rest } = JSON.parse(line) as Record<string, number>;
    return JSON.stringify(rest);
  });
  return {
    ...Object.fromEntries(tensors.map((tensor) => [tensor, sha256(file(`checkpoints/${last}/${tensor}`))])),
    metrics: metrics.join('\n'),
  };
}

/** The same numbers on every run of the test: a linear congruential generator (Numerical Recipes). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

const partial = (name: string): string[] =>
  existsSync(checkpoints(name))
    ? readdirSync(checkpoints(name)).filter((entry) => entry.startsWith('.partial-step-'))
    : [];

/** Trains until it is killed or done; whether it was killed, and whether in the middle of writing a checkpoint. */
async function trainAndKill(name: string, flags: string[], random: () => number, aim: 'anywhere' | 'checkpoint') {
  const { child, ended } = start(folder, ['train', 'c.yaml', '--name', name, '--resume', ...ARGUMENTS, ...flags]);
  const before = partial(name);
  if (aim === 'anywhere') await Promise.race([sleep(random() * 3000), ended]);
  else while (child.exitCode === null && partial(name).every((entry) => before.includes(entry))) await sleep(0);
  child.kill('SIGKILL');
  const { status, stderr } = await ended;
  if (status !== null && status !== 0) throw new Error(`Training failed: ${stderr}`);
  const killed = status === null; // by the signal
  return { killed, inCheckpoint: killed && partial(name).some((entry) => !before.includes(entry)) };
}

test.for(CASES)(
  'killed with -9 again and again, some times within checkpoints, a run with $optimizer in $precision on $backend ends with the bits of the uninterrupted one',
  { timeout: 300_000 },
  async (given, { skip }) => {
    const { optimizer, backend } = given;
    skip(backend === 'native' && missing !== undefined, `no C++ engine: ${missing}`);
    writeFileSync(join(folder, 'c.yaml'), config(given));
    const reference = `${optimizer}-${backend}-whole`;
    const whole = await llmx(folder, 'train', 'c.yaml', '--name', reference, ...ARGUMENTS);
    expect(whole.status).toBe(0);
    expect(Object.keys(lastJson(whole)).toSorted()).toEqual(
      ['backend', 'peakMemoryMiB', 'runDir', 'steps', 'tokens', 'tokensPerSecond', 'trainLoss', 'valLoss'].toSorted(),
    );
    const expected = outcome(reference);
    const random = seeded(1);
    let [kills, inCheckpoints] = [0, 0];
    for (let run = 0; kills < given.kills || inCheckpoints < given.inCheckpoints; run++) {
      expect(run, 'runs needed').toBeLessThan(20);
      const name = `${optimizer}-${backend}-${run}`;
      for (let attempt = 0; attempt < 6; attempt++) {
        const { killed, inCheckpoint } = await trainAndKill(
          name,
          threads(backend, attempt),
          random,
          attempt % 3 === 2 ? 'checkpoint' : 'anywhere',
        );
        kills += Number(killed);
        inCheckpoints += Number(inCheckpoint);
        if (!killed) break;
      }
      const end = await llmx(
        folder,
        'train',
        'c.yaml',
        '--name',
        name,
        '--resume',
        ...ARGUMENTS,
        ...threads(backend, 2),
      );
      expect(end).toMatchObject({ status: 0 });
      expect(lastJson(end)).toMatchObject({
        steps: STEPS,
        trainLoss: lastJson(whole)['trainLoss'],
        valLoss: lastJson(whole)['valLoss'],
      });
      expect(outcome(name), `after ${kills} kills, in ${name}`).toEqual(expected);
      expect(partial(name)).toEqual([]);
    }
    expect(kills).toBeGreaterThanOrEqual(given.kills);
    expect(inCheckpoints).toBeGreaterThanOrEqual(given.inCheckpoints);
  },
);
