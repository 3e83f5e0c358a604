// Self-speculative decoding on the C++ engine: what a pass with its proposals costs beside a pass of ordinary decoding. With
// t tokens a pass, which depends on how the heads were trained, the speed-up is t divided by that ratio. Bytes, hidden size
// 384, windows of 512, 6 blocks in total, each head a block of the model.
import nativePlugin, { nativeUnavailable } from '../packages/backend-native/dist/index.js';
import { builtin, chooseBackend, generate, keyedRng, prefixed, Registry, tf } from '../packages/core/dist/index.js';
import mtp from '../packages/plugin-mtp/dist/index.js';

export const name = 'decoding';

const [CONTEXT, WIDTH, BLOCKS, PASSES] = [512, 384, 6, 40];
const PROMPT = Array.from({ length: 128 }, (_, index) => (index * 7919) % 256);
const HEAD = { name: 'attention', heads: 6 };
const ROUNDS = 5;

const KINDS = [
  { title: '1 parallel head', ahead: 1, objective: { name: 'multi-token', tokens: 2, head: HEAD } },
  { title: '3 parallel heads', ahead: 3, objective: { name: 'multi-token', tokens: 4, head: HEAD } },
  { title: '3 linear heads', ahead: 0, objective: { name: 'multi-token', tokens: 4, head: 'linear' } },
  { title: '3 modules', ahead: 3, objective: { name: 'multi-token-sequential', tokens: 4, block: HEAD } },
];

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Milliseconds between passes, the prompt's left out. Sampling: heads without training agree with the model now and then. */
async function passTime(source, seed) {
  const options = { maxTokens: 4 * PASSES, temperature: 1, topK: 0, topP: 1, seed };
  const times = [];
  const onRound = () => times.push(performance.now());
  for await (const _ of generate(source, PROMPT, { ...options, onRound }, new AbortController().signal))
    if (times.length > PASSES) break;
  return (times.at(-1) - times[0]) / (times.length - 1);
}

function sourceOf(registry, objectiveOptions, ahead) {
  const sizes = { vocabSize: 257, contextLength: CONTEXT };
  const blocks = [{ block: 'attention', heads: 6, repeat: BLOCKS - ahead }];
  const model = registry.create('architecture', { name: 'decoder', dModel: WIDTH, blocks }, sizes);
  const tokenizer = { ...registry.create('tokenizer', { name: 'bytes' }, {}), vocabSize: 257, endOfText: -1 };
  const objective = registry.create('objective', objectiveOptions, sizes);
  const rng = keyedRng(1, 'init');
  const own = objective.init?.(rng.scope('objective'), model) ?? {};
  const params = { ...model.init(rng), ...prefixed('objective', own) };
  return { model, params, tokenizer, draft: registry.create('draft', objectiveOptions, { ...sizes, model }) };
}

export async function run() {
  if (nativeUnavailable() !== undefined) return [];
  const registry = new Registry([builtin, nativePlugin, mtp]);
  await chooseBackend({ registry, selected: { name: 'native' }, precision: 'fp32', resolveFrom: [process.cwd()] });
  const rows = [];
  for (const { title, ahead, objective } of KINDS) {
    const { draft, ...source } = sourceOf(registry, objective, ahead);
    const times = { ordinary: [], speculative: [] };
    for (let round = 0; round < ROUNDS; round++) {
      times.ordinary.push(await passTime(source, round));
      times.speculative.push(await passTime({ ...source, draft }, round));
    }
    const [ordinary, value] = [median(times.ordinary), median(times.speculative)];
    rows.push({ name: `pass with ${title}`, value, unit: 'ms', ratio: value / ordinary, yardstick: 'ordinary pass' });
    tf.dispose(source.params);
  }
  return rows;
}
