// Runs in child processes that are killed, or whose files fail.
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { TinyRuns } from './tiny-run.ts';

const CHILD = fileURLToPath(new URL('fault-child.mjs', import.meta.url));
const STEPS = 16;
const PLUGINS = ['plugin-mtp', 'plugin-schedulefree', 'plugin-xlstm'];

const TRANSFORMER = {
  model: { dModel: 32, contextLength: 16, blocks: [{ block: 'attention', repeat: 2, heads: 2, dropout: 0.1 }] },
  optimizer: { name: 'adamw', lr: 0.003 },
};
const SCHEDULE_FREE = {
  ...TRANSFORMER,
  plugins: ['@llmx/plugin-schedulefree'],
  schedule: { name: 'constant', warmup: 5 },
};
const NATIVE = { name: 'native', threads: 1 };

/** Settings by name; that ends in the backend. Dropout and accumulation are easily lost on resume. */
const CONFIGS: Readonly<Record<string, object>> = {
  ...onBoth('transformer', TRANSFORMER),
  ...onBoth('schedulefree', { ...SCHEDULE_FREE, optimizer: { name: 'adamw-schedulefree', lr: 0.003 } }),
  ...onBoth('plugins', {
    plugins: ['@llmx/plugin-xlstm', '@llmx/plugin-mtp'],
    model: {
      dModel: 32,
      contextLength: 16,
      blocks: [
        { block: 'mlstm', heads: 2 },
        { block: 'slstm', heads: 2 },
      ],
    },
    objective: { name: 'multi-token', tokens: 3 },
    optimizer: { name: 'adamw', lr: 0.003 },
  }),
  'bf16-native': { ...TRANSFORMER, precision: 'bf16', backend: NATIVE },
  'radam-wasm': { ...SCHEDULE_FREE, optimizer: { name: 'radam-schedulefree', lr: 0.003 }, backend: 'wasm' },
};
/** Names of what is killed: every plugin there is, on both backends. */
export const KILLED: readonly string[] = Object.keys(CONFIGS);

function onBoth(name: string, settings: object): Record<string, object> {
  return {
    [`${name}-native`]: { ...settings, backend: NATIVE },
    [`${name}-wasm`]: { ...settings, backend: 'wasm' },
  };
}

const train = {
  steps: STEPS,
  batchSize: 2,
  gradAccumulation: 2,
  logEvery: 1,
  evalEvery: 4,
  evalTokens: 128,
  checkpointEvery: 3,
  guard: { spikeSigma: 20, spikeWindow: 4 },
};

/** When a process is killed: at the `count`th file operation or event of a phase. */
export interface Fault {
  readonly phase: string;
  readonly count: number;
  readonly place?: 'before' | 'half' | 'after';
  /** From the event to the kill, ms. */
  readonly delay?: number;
  /** Largest size of a file, KiB: a limit of the process (`ulimit -f`). */
  readonly fileKiB?: number;
}

/** The letter that the child writes for the event of a phase. */
const LETTERS: Readonly<Record<string, string>> = { step: 's', evaluation: 'e' };

export interface Ended {
  readonly signal: NodeJS.Signals | null;
  readonly status: number | null;
  readonly stderr: string;
}

/** A folder with data and the configurations. */
export class FaultyRuns {
  readonly tiny: TinyRuns;

  private constructor(tiny: TinyRuns) {
    this.tiny = tiny;
  }

  static async create(): Promise<FaultyRuns> {
    const tiny = await TinyRuns.create();
    const modules = path.join(tiny.folder, 'node_modules/@llmx');
    fs.mkdirSync(modules, { recursive: true });
    for (const name of PLUGINS)
      fs.symlinkSync(fileURLToPath(new URL(`../../packages/${name}`, import.meta.url)), path.join(modules, name));
    for (const [name, config] of Object.entries(CONFIGS))
      fs.writeFileSync(
        path.join(tiny.folder, `${name}.json`),
        JSON.stringify({ data: { train: 'data' }, ...config, train }),
      );
    return new FaultyRuns(tiny);
  }

  /** Trains or continues a run in a process of its own. */
  start(config: string, name: string, fault?: Fault): { child: ChildProcess; ended: Promise<Ended> } {
    const { NODE_ENV: _, NODE_PATH: _path, ...env } = process.env;
    const limited = fault?.fileKiB === undefined ? [] : ['bash', '-c', `ulimit -f ${fault.fileKiB}; exec "$0" "$@"`];
    const [command = '', ...args] = limited.concat(process.execPath, CHILD, this.tiny.folder, `${config}.json`, name);
    const child = spawn(command, args, {
      env: { ...env, LLMX_FAULT: JSON.stringify(fault ?? null) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    if (fault !== undefined) killOn(child, fault);
    const ended = new Promise<Ended>((resolve, reject) => {
      child.on('error', reject).on('close', (status, signal) => resolve({ status, signal, stderr }));
    });
    return { child, ended };
  }

  /** Everything that must come out the same: tensors, and metrics without times and memory. */
  outcome(name: string): Record<string, unknown> {
    const tensors = this.tiny.tensors(name, STEPS).map((base64) => createHash('sha256').update(base64).digest('hex'));
    const folder = this.tiny.path(name, 'checkpoints');
    const left = [...fs.readdirSync(folder), ...fs.readdirSync(this.tiny.path(name))].filter((entry) =>
      /^\.partial|^\.replaced|^\.lock/.test(entry),
    );
    return { tensors, metrics: this.tiny.metrics(name), left };
  }

  /** Runs without a fault to its end; the outcome. */
  async finish(config: string, name: string): Promise<Record<string, unknown>> {
    const { status, stderr } = await this.start(config, name).ended;
    if (status !== 0) throw new Error(`The run "${name}" ended with status ${status}: ${stderr}`);
    return this.outcome(name);
  }
}

/** Kills a process some time after its start or after an event. */
function killOn(child: ChildProcess, { phase, count, delay = 0 }: Fault): void {
  const kill = () => setTimeout(() => child.kill('SIGKILL'), delay);
  if (phase === 'start') kill();
  const letter = LETTERS[phase];
  let seen = 0;
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    for (const each of text) if (each === letter && ++seen === count) kill();
  });
}

/** The same numbers for the same seed: a linear congruential generator (Numerical Recipes). */
export function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}
