// One training run of each side, in a process of its own: tokens/s, peak resident MiB, loss.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = path.join(root, 'packages', 'cli', 'bin', 'llmx.js');
const script = fileURLToPath(new URL('torch_gpt.py', import.meta.url));
const execute = promisify(execFile);

/** Steps that are not timed: compilers and allocators settle. */
export const WARMUP = 4;
/** Steps whose losses are averaged, at the end. */
const TAIL = 8;

/** glibc keeps freed memory, and takes none page by page: the usual advice for training on CPUs. */
export const TUNED_MALLOC = {
  MALLOC_TRIM_THRESHOLD_: '17179869184',
  MALLOC_MMAP_THRESHOLD_: '17179869184',
  MALLOC_TOP_PAD_: '268435456',
};

/** The ways of running the PyTorch script; which is fastest depends on the machine. */
export const VARIANTS = [
  { name: 'eager, malloc as it is', flags: [], env: {} },
  { name: 'eager, malloc tuned', flags: [], env: TUNED_MALLOC },
  { name: 'compiled, malloc as it is', flags: ['--compile'], env: {} },
  { name: 'compiled, malloc tuned', flags: ['--compile'], env: TUNED_MALLOC },
];

/** The middle one, or the mean of the two in the middle. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return (low + high) / 2;
}

export async function output(command, args, options) {
  const { stdout } = await execute(command, args, { maxBuffer: 2 ** 26, ...options });
  return stdout;
}

export const lastLine = (text) => JSON.parse(text.trimEnd().split('\n').at(-1));

/** The resolved configuration of a run. `sets` are settings over the file, `key=value`. */
export async function resolved({ file, sets, folder, signal }) {
  const flags = sets.flatMap((set) => ['--set', set]);
  return JSON.parse(
    await output(process.execPath, [program, 'config', 'show', file, ...flags, '--json'], { cwd: folder, signal }),
  );
}

/** `llmx train` from its start to its end; the first `warmup` steps are not timed. */
export async function trainLlmx({ file, sets, folder, signal, warmup = WARMUP }) {
  const flags = sets.flatMap((set) => ['--set', set]);
  const args = [program, 'train', file, '--name', 'bench', ...flags, '--json'];
  const result = JSON.parse(await output(process.execPath, args, { cwd: folder, signal }));
  const lines = fs.readFileSync(path.join(result.runDir, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  const steps = lines.map((line) => JSON.parse(line));
  fs.rmSync(result.runDir, { recursive: true });
  return {
    tokensPerSecond: median(steps.slice(warmup).map(({ tokensPerSecond }) => tokensPerSecond)),
    loss: mean(steps.slice(-TAIL).map(({ loss }) => loss)),
    peakMiB: steps.at(-1).peakMiB,
    peakWithCheckpointMiB: result.peakMemoryMiB,
    backend: result.backend,
  };
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** A Python that has PyTorch, and its version; undefined, and a line on stderr, where there is none. */
export async function findTorch(signal) {
  const { LLMX_TORCH_PYTHON: chosen } = process.env;
  const python = chosen ?? path.join(root, '.venv', 'bin', 'python');
  try {
    const version = await output(python, ['-c', 'import torch; print(torch.__version__)'], { signal });
    return { python, version: version.trim() };
  } catch (cause) {
    signal.throwIfAborted();
    const reason = cause.code === 'ENOENT' ? 'there is no such program' : cause.message.trimEnd().split('\n').at(-1);
    console.error(`Without PyTorch beside it: ${python}: ${reason}. LLMX_TORCH_PYTHON names a Python that has torch.`);
    return undefined;
  }
}

/** The same model, recipe and number of steps in PyTorch. */
export async function trainTorch({ python, variant, config, vocabulary, ids, steps, signal }) {
  const { model, train, optimizer } = config;
  const [block] = model.blocks;
  const settings = {
    layers: block.repeat,
    heads: block.heads,
    width: model.dModel,
    vocabulary,
    context: model.contextLength,
    batch: train.batchSize,
    steps,
    warmup: WARMUP,
    tail: TAIL,
    threads: os.availableParallelism(),
    lr: optimizer.lr,
    seed: train.seed,
    precision: config.precision,
    tokens: ids,
  };
  const flags = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const env = { ...process.env, ...variant.env };
  return lastLine(await output(python, [script, ...flags, ...variant.flags], { env, signal }));
}
