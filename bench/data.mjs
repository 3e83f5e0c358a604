// Token datasets: speed of reading windows, memory while reading, speed of the bytes tokenizer.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { trainingBatches } from '../packages/core/dist/data/batches.js';
import { bytesTokenizer } from '../packages/core/dist/data/bytes-tokenizer.js';
import { DatasetWriter } from '../packages/core/dist/data/dataset-writer.js';
import { openDataset } from '../packages/core/dist/data/llmx-tokens.js';
import { windowOrder } from '../packages/core/dist/data/order.js';

export const name = 'data';

const MEBI = 2 ** 20;
const SMALL_TOKENS = 16 * MEBI;
const LARGE_TOKENS = 2048 * MEBI;
const LARGE_NEEDS_FREE_BYTES = 12e9;
const REPEATS = 5;
const tokenizer = bytesTokenizer.build({}, {});

/** Units of work per second, the median of several rounds; `work` returns the units it did. */
function rate(work) {
  work();
  const rates = Array.from({ length: REPEATS }, () => {
    const start = performance.now();
    const units = work();
    return (units * 1000) / (performance.now() - start);
  });
  return rates.toSorted((a, b) => a - b)[Math.floor(REPEATS / 2)];
}

/** A dataset of `tokens` tokens in documents of 64 Ki. */
function writeDataset(directory, tokens) {
  fs.mkdirSync(directory);
  const ids = Uint16Array.from({ length: 65_535 }, (_, index) => (index * 31) % 256);
  const writer = new DatasetWriter(directory, { name: 'bytes', instance: tokenizer });
  for (let done = 0; done < tokens; done += ids.length + 1)
    writer.add('train', { ids, bytes: ids.length, source: 'bench' });
  writer.finish();
}

/** Tokens per second of reading `bytes` at a time into one buffer, at `positions`. */
function plainReading(file, positions, bytes) {
  const descriptor = fs.openSync(file, 'r');
  const buffer = Buffer.alloc(bytes);
  const tokens = rate(() => {
    let read = 0;
    for (const position of positions) read += fs.readSync(descriptor, buffer, 0, bytes, position);
    return read / 2;
  });
  fs.closeSync(descriptor);
  return tokens;
}

/** Where windows start, in the order of an epoch. */
function windowStarts(tokens, time) {
  const count = Math.floor((tokens - 1) / time);
  const order = windowOrder(1, 0, count);
  return Float64Array.from({ length: Math.min(count, 20_000) }, (_, index) => order(index) * time);
}

/** A row about windows of `time` + 1 tokens, beside reading as many bytes at the same places without any checks. */
function windowReading(reader, file, time) {
  const starts = windowStarts(reader.tokens, time);
  const positions = starts.map((start) => 2 * start);
  const plain = plainReading(file, positions, 2 * (time + 1));
  const value = rate(() => {
    for (const start of starts) reader.read(start, time + 1);
    return starts.length * (time + 1);
  });
  const yardstick = 'readSync into one buffer';
  return {
    name: `windows of ${time + 1} tokens`,
    value: value / 1e6,
    unit: 'M tokens/s',
    ratio: value / plain,
    yardstick,
  };
}

function batchAssembly(reader) {
  const shape = { time: 256, lookahead: 1, packing: 'stream', endOfText: tokenizer.endOfText };
  const batches = trainingBatches({ reader, seed: 1, batchSize: 16, gradAccumulation: 1, ...shape });
  return rate(() => {
    for (let step = 1; step <= 500; step++) batches.micro(step, 0);
    return 500 * 16 * 256;
  });
}

function reading(directory) {
  const file = path.join(directory, 'train-00000.arrow');
  const reader = openDataset(directory).split('train');
  const blocks = Float64Array.from({ length: 32 }, (_, index) => index * MEBI);
  const rows = [
    { name: 'blocks of 1 MiB, plain', value: plainReading(file, blocks, MEBI) / 1e6, unit: 'M tokens/s' },
    ...[256, 512, 1024].map((time) => windowReading(reader, file, time)),
    { name: 'batches of 16 x 256 tokens', value: batchAssembly(reader) / 1e6, unit: 'M tokens/s' },
  ];
  reader.close();
  return rows;
}

/** Resident MiB after reading 50 000 windows from all over the dataset: the least of three processes. */
const residentMemory = (directory) => Math.min(...[1, 2, 3].map(() => residentOnce(directory)));

function residentOnce(directory) {
  const data = new URL('../packages/core/dist/data/llmx-tokens.js', import.meta.url).href;
  const script = `
    const { openDataset } = await import(${JSON.stringify(data)});
    const reader = openDataset(${JSON.stringify(directory)}).split('train');
    for (let i = 0; i < 50_000; i++) reader.read(Math.floor((i * 0.6180339887 % 1) * (reader.tokens - 1025)), 1025);
    gc();
    console.log(process.memoryUsage().rss / 2 ** 20);`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  if (stderr !== '') throw new Error(stderr);
  return Number(stdout);
}

function memory(folder, small) {
  const { bavail, bsize } = fs.statfsSync(folder);
  const enough = bavail * bsize > LARGE_NEEDS_FREE_BYTES;
  const tokens = enough ? LARGE_TOKENS : LARGE_TOKENS / 8;
  const large = path.join(folder, 'large');
  writeDataset(large, tokens);
  const base = residentMemory(small);
  const value = residentMemory(large);
  const note = enough ? '' : ', for lack of disk space, not 2048 Mi';
  return {
    name: `memory, ${tokens / MEBI} Mi tokens${note}`,
    value,
    unit: 'MiB resident',
    ratio: value / base,
    yardstick: `the same with ${SMALL_TOKENS / MEBI} Mi tokens`,
  };
}

function encoding() {
  const text = Buffer.alloc(MEBI, 'All happy families are alike. ');
  const copy = rate(() => {
    for (let round = 0; round < 50; round++) Buffer.from(text);
    return 50 * text.length;
  });
  const encode = rate(() => {
    for (let round = 0; round < 50; round++) tokenizer.encode(text);
    return 50 * text.length;
  });
  return {
    name: 'bytes tokenizer',
    value: encode / 1e6,
    unit: 'MB/s',
    ratio: encode / copy,
    yardstick: 'copy of a Buffer',
  };
}

export async function run() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-bench-data-'));
  try {
    const small = path.join(folder, 'small');
    writeDataset(small, SMALL_TOKENS);
    return [...reading(small), memory(folder, small), encoding()];
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
