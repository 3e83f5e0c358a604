// Runs of a tiny model within this process, for tests of what happens to runs.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import * as coreModule from '@llmx/core';
import {
  builtin,
  type Host,
  prepareDataset,
  readMetrics,
  Registry,
  train,
  type TrainOptions,
  type TrainResult,
} from '@llmx/core';

const CONFIG = {
  data: { train: 'data' },
  model: { dModel: 8, contextLength: 16, blocks: [{ block: 'attention', repeat: 1, heads: 2, dropout: 0.1 }] },
  optimizer: { name: 'adamw', lr: 0.01 },
  schedule: { name: 'cosine', warmup: 2 },
  train: {
    steps: 12,
    batchSize: 2,
    gradAccumulation: 2,
    logEvery: 3,
    evalEvery: 4,
    evalTokens: 256,
    checkpointEvery: 5,
    keepLast: 9,
  },
  backend: 'cpu',
};

const TENSORS = ['model', 'optimizer', 'plugins'].map((group) => `${group}.safetensors`);

/** A folder with a dataset and a configuration `c.json`, in which runs are made. */
export class TinyRuns {
  readonly folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-tiny-')));
  /** What core said through the host. */
  readonly said: string[] = [];

  /** A folder with its dataset; `plugins` are written as files and named in the configuration. */
  static async create(plugins: Readonly<Record<string, string>> = {}): Promise<TinyRuns> {
    const runs = new TinyRuns();
    for (const [name, source] of Object.entries(plugins)) fs.writeFileSync(path.join(runs.folder, name), source);
    const config = { ...CONFIG, plugins: Object.keys(plugins).map((name) => `./${name}`) };
    fs.writeFileSync(path.join(runs.folder, 'c.json'), JSON.stringify(config));
    for (let file = 0; file < 6; file++)
      fs.writeFileSync(
        path.join(runs.folder, `${file}.txt`),
        Array.from({ length: 30 }, (_, line) => `${line * file} sheep and ${line} goats`).join('\n'),
      );
    await runs.prepare({ out: 'data', valFraction: 0.3 });
    return runs;
  }

  /** Makes a dataset of the folder's texts. */
  async prepare(options: { out: string; valFraction: number; force?: boolean }): Promise<void> {
    const instance = new Registry([builtin]).create('tokenizer', { name: 'bytes' }, {});
    const inputs = [path.join(this.folder, '*.txt')];
    await prepareDataset({ inputs, tokenizer: { name: 'bytes', instance }, host: this.host(), ...options });
  }

  host(overrides: Partial<Host> = {}): Host {
    return {
      cwd: this.folder,
      installRoot: this.folder,
      signal: new AbortController().signal,
      firstParty: {},
      process: { pid: process.pid, version: process.version, started: '0', hostname: 'test', isAlive: () => false },
      memory: () => ({ residentMiB: 1, peakMiB: 2 }),
      now: () => performance.now(),
      log: (level, message) => void this.said.push(`${level}: ${message}`),
      ...overrides,
    };
  }

  /** Trains or continues the run `name`. */
  train(
    name: string,
    sets: readonly string[] = [],
    host: Partial<Host> = {},
    options: Partial<TrainOptions> = {},
  ): Promise<TrainResult> {
    return train({ file: 'c.json', name, sets, resume: true, ...options }, { host: this.host(host), coreModule });
  }

  path(...parts: readonly string[]): string {
    return path.join(this.folder, 'runs', ...parts);
  }

  checkpoint(name: string, step: number): string {
    return this.path(name, 'checkpoints', `step-${String(step).padStart(8, '0')}`);
  }

  /** The tensors of a checkpoint, as one text per file that is the same for the same bytes. */
  tensors(name: string, step: number): string[] {
    return TENSORS.map((file) => fs.readFileSync(path.join(this.checkpoint(name, step), file), 'base64'));
  }

  /** Records of a run without what the clock and the machine decide. */
  metrics(name: string): Record<string, unknown>[] {
    return readMetrics(this.path(name, 'metrics.jsonl')).map(({ kind, step, metrics }) => {
      const { tokensPerSecond: _speed, memoryMiB: _memory, ...rest } = metrics;
      return { kind, step, ...rest };
    });
  }

  remove(): void {
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The code and message of what a promise fails with. */
export async function failureOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => 'nothing',
    (reason: unknown) => reason,
  );
  return coreModule.LlmxError.is(error) ? `${error.code}: ${error.message}` : String(error);
}
