// Training and decoding of xLSTM beside a Transformer of equal size and, where it is there, the authors' package on PyTorch:
// tokens/s and peak memory at several context lengths with the same number of tokens per batch, and decoding up to 16,384
// tokens. Every run is a process of its own, and sides take turns.
//
// LLMX_TORCH_PYTHON: a Python that has torch (.venv/bin/python). LLMX_XLSTM_REPO: a checkout of NX-AI/xlstm.
// LLMX_BENCH_QUICK: xLSTM[1:0] alone, and of the package's ways of training the one that takes least memory.
// LLMX_BENCH_ONLY: training or decoding. LLMX_BENCH_CONTEXTS: some of the contexts, e.g. 1024,16384.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { nativeUnavailable } from '../packages/backend-native/dist/index.js';
import { bytesTokenizer } from '../packages/core/dist/data/bytes-tokenizer.js';
import { prepare } from './train/data.mjs';
import { lastLine, output, trainLlmx } from './train/sides.mjs';
import { decodeYardstick, findYardstick, trainYardstick } from './xlstm/yardstick.mjs';

export const name = 'xlstm';

const TOKENS = 16_384;
const CONTEXTS = (process.env.LLMX_BENCH_CONTEXTS ?? '256,1024,4096,16384').split(',').map(Number);
/** Others are compared with this one: a step's fixed costs no longer count. */
const LONG = 1024;
/** Where the authors' package takes part: its parallel form takes memory quadratic in the context, 15 GB at 1,024. */
const YARDSTICK_CONTEXTS = [256, 1024];
const MARKS = [1024, 16_384];
const [STEPS, WARMUP] = [5, 1];
const [WIDTH, DEPTH, HEADS] = [256, 8, 4];
const tokenizer = { name: 'bytes', instance: bytesTokenizer.build({}, {}) };
const SIZES = { width: WIDTH, depth: DEPTH, heads: HEADS, vocabulary: tokenizer.instance.vocabSize };

/** An xLSTM block holds half of the weights of a Transformer's; as in the paper, the Transformer has half as many. */
const TRANSFORMER = {
  name: 'Transformer',
  options: {
    dModel: WIDTH,
    positions: 'rotary',
    bias: false,
    blocks: [{ block: 'attention', heads: HEADS, repeat: DEPTH / 2 }],
  },
};
const RECURRENT = [
  { name: 'xLSTM[1:0]', slstm: [], options: { architecture: 'xlstm', size: '3M', ratio: [1, 0] } },
  { name: 'xLSTM[7:1]', slstm: [1], options: { architecture: 'xlstm', size: '3M', ratio: [7, 1] } },
];

const { LLMX_BENCH_ONLY: only, LLMX_BENCH_QUICK: quick } = process.env;
const recurrent = quick === undefined ? RECURRENT : RECURRENT.slice(0, 1);
const decoder = fileURLToPath(new URL('xlstm/decode.mjs', import.meta.url));
/** The plugin, and the one that adds the peak memory of the steps to the metrics. */
const plugins = ['../packages/plugin-xlstm/dist/index.js', './train/plugin.mjs'].map((file) =>
  fileURLToPath(new URL(file, import.meta.url)),
);

/** The configuration file of one model at one context. */
function writeConfig(folder, dataset, { options }, context) {
  const file = path.join(folder, 'config.json');
  const train = {
    steps: STEPS,
    batchSize: TOKENS / context,
    evalEvery: 0,
    checkpointEvery: 0,
    keepBest: false,
    logEvery: 1,
  };
  const config = {
    plugins,
    data: { train: dataset },
    model: { ...options, contextLength: context },
    optimizer: { name: 'adamw', lr: 1e-3 },
    backend: 'native',
    train,
  };
  fs.writeFileSync(file, JSON.stringify(config));
  return file;
}

const speedAndMemory = (title, { tokensPerSecond, peakMiB }, other) => {
  const against = (key, value) => other && { ratio: value / other[key], yardstick: other.name };
  return [
    { name: title, value: tokensPerSecond, unit: 'tokens/s', ...against('tokensPerSecond', tokensPerSecond) },
    { name: `${title}: peak`, value: peakMiB, unit: 'MiB', ...against('peakMiB', peakMiB) },
  ];
};

/** What a token costs beside what it costs the same model at the context LONG. */
const timeOfToken = (title, { tokensPerSecond }, atLong) => ({
  name: `${title}: time of a token`,
  value: 1e6 / tokensPerSecond,
  unit: 'us',
  ...(atLong && { ratio: atLong.tokensPerSecond / tokensPerSecond, yardstick: `at ${LONG}` }),
});

async function trainingRows(folder, yardstick, signal) {
  const { dataset } = prepare(folder, tokenizer);
  const rows = [];
  const atLong = new Map();
  // LONG first, since the others are compared with it.
  for (const context of CONTEXTS.toSorted((a, b) => Number(b === LONG) - Number(a === LONG))) {
    const train = async (model) => {
      const file = writeConfig(folder, dataset, model, context);
      const result = await trainLlmx({ file, sets: [], folder, signal, warmup: WARMUP });
      console.error(`${model.name}, context ${context}: ${Math.round(result.tokensPerSecond)} tokens/s`);
      if (context === LONG) atLong.set(model, result);
      return { name: model.name, ...result };
    };
    const title = (model) => `${model.name}, training, context ${context}`;
    const transformer = await train(TRANSFORMER);
    rows.push(
      ...speedAndMemory(title(TRANSFORMER), transformer),
      timeOfToken(title(TRANSFORMER), transformer, atLong.get(TRANSFORMER)),
    );
    for (const model of recurrent) {
      const result = await train(model);
      rows.push(
        ...speedAndMemory(title(model), result, transformer),
        timeOfToken(title(model), result, atLong.get(model)),
      );
      if (yardstick === undefined || !YARDSTICK_CONTEXTS.includes(context)) continue;
      const other = await trainYardstick(yardstick, model, { ...SIZES, context, batch: TOKENS / context }, signal);
      if (other !== undefined) rows.push(...speedAndMemory(title(model), result, other));
    }
  }
  return rows;
}

async function decodingRows(yardstick, signal) {
  const rows = [];
  for (const model of [TRANSFORMER, ...recurrent]) {
    const settings = {
      model: model.options,
      vocabulary: SIZES.vocabulary,
      marks: MARKS,
      threads: os.availableParallelism(),
    };
    const result = lastLine(await output(process.execPath, [decoder, JSON.stringify(settings)], { signal }));
    const [first] = result.marks;
    rows.push({ name: `${model.name}: parameters`, value: result.parameters / 1e6, unit: 'M' });
    for (const [index, { milliseconds, residentMiB }] of result.marks.entries()) {
      const title = `${model.name}, decoding, token ${MARKS[index]}`;
      const memory = index > 0 && { ratio: residentMiB / first.residentMiB, yardstick: `token ${MARKS[0]}` };
      console.error(`${title}: ${milliseconds.toFixed(2)} ms, ${Math.round(residentMiB)} MiB`);
      rows.push(
        { name: title, value: 1000 / milliseconds, unit: 'tokens/s' },
        { name: `${title}: resident`, value: residentMiB, unit: 'MiB', ...memory },
      );
    }
    if (yardstick === undefined || model === TRANSFORMER) continue;
    const other = await decodeYardstick(yardstick, model, { ...SIZES, tokens: MARKS[0] }, signal);
    if (other === undefined) continue;
    const speed = { value: 1000 / first.milliseconds, unit: 'tokens/s', ratio: other / first.milliseconds };
    rows.push({ name: `${model.name}, decoding, token ${MARKS[0]}`, ...speed, yardstick: 'NX-AI/xlstm' });
  }
  return rows;
}

export async function run() {
  const missing = nativeUnavailable();
  if (missing !== undefined) {
    console.error(`xlstm: left out, since ${missing}.`);
    return [];
  }
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const { signal } = interrupt;
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-bench-xlstm-'));
  try {
    const yardstick = await findYardstick(signal);
    return [
      ...(only === 'decoding' ? [] : await trainingRows(folder, yardstick, signal)),
      ...(only === 'training' ? [] : await decodingRows(yardstick, signal)),
    ];
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
