// `node decode.mjs <model as JSON>`: decodes with a model of random weights, a prompt taken in at once and then token after
// token. Prints one line of JSON: the number of parameters, and for each of `marks` how many milliseconds the tokens before it
// took (the median) and the resident memory there, MiB.
import nativePlugin from '../../packages/backend-native/dist/index.js';
import { builtin, chooseBackend, keyedRng, Registry } from '../../packages/core/dist/index.js';
import { generate } from '../../packages/core/dist/generate/index.js';
import xlstm from '../../packages/plugin-xlstm/dist/index.js';
import { median } from '../train/sides.mjs';

const PROMPT = 512;
/** Tokens before a mark whose times count. */
const TIMED = 256;

const { model: selected, vocabulary, marks, threads } = JSON.parse(process.argv[2]);
const last = Math.max(...marks);
const registry = new Registry([builtin, nativePlugin, xlstm]);
const backend = { name: 'native', threads };
await chooseBackend({ registry, selected: backend, precision: 'fp32', resolveFrom: [process.cwd()] });
await xlstm.setup({}, {}).hooks.backendReady({ backend: 'native', precision: 'fp32' }); // loads its kernels

const { architecture = 'decoder', ...options } = selected;
const sizes = { vocabSize: vocabulary, contextLength: PROMPT + last };
const model = registry.create('architecture', { name: architecture, ...options }, sizes);
const params = model.init(keyedRng(1, 'init'));
// No token ends the text.
const tokenizer = { vocabSize: vocabulary, endOfText: -1 };
const prompt = Array.from({ length: PROMPT }, (_, index) => (index * 7919) % vocabulary);
const limits = { maxTokens: last, seed: 1, temperature: 0 };

const times = [];
const rows = [];
let before = performance.now();
for await (const _ of generate({ model, params, tokenizer }, prompt, limits, new AbortController().signal)) {
  const now = performance.now();
  times.push(now - before);
  before = now;
  if (marks.includes(times.length))
    rows.push({ milliseconds: median(times.slice(-TIMED)), residentMiB: process.memoryUsage().rss / 2 ** 20 });
}
console.log(
  JSON.stringify({ parameters: Object.values(params).reduce((sum, { size }) => sum + size, 0), marks: rows }),
);
