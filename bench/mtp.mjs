// Multi-token prediction on the C++ engine: peak memory of a training step and its time, for n tokens ahead and one total
// number of blocks, as in the paper: each head beyond the first takes a block of the model. `one after another` is how the
// objectives run; `all at once` computes the losses of `multi-token` and differentiates them together.
import mtp from '../packages/plugin-mtp/dist/index.js';
import nativePlugin, { nativeBackend, nativeUnavailable } from '../packages/backend-native/dist/index.js';
import {
  builtin,
  chooseBackend,
  crossEntropy,
  keyedRng,
  labelsOfView,
  prefixed,
  Registry,
  rmsNorm,
  scoped,
  stateTensors,
  tf,
} from '../packages/core/dist/index.js';
import { HookDriver } from '../packages/core/dist/plugin/hook-driver.js';
import { trainStep } from '../packages/core/dist/train/step.js';

export const name = 'mtp';

const [BATCH, TIME, WIDTH, BLOCKS] = [4, 256, 256, 8];
const [WORDS, BYTES] = [32_768, 257];
const NUMBERS = [1, 2, 4, 8];
const HEAD = { name: 'attention', heads: 4 };
const TIMED_STEPS = 3;
const UNTIMED = { isTimed: false };

/** The losses of `multi-token`, from the same parameters, all recorded and then differentiated. */
function allAtOnce(registry, sizes, objective) {
  const { lookahead: tokens } = objective;
  const block = registry.create('block', HEAD, { ...sizes, dModel: WIDTH, index: 0, depth: tokens });
  return {
    ...base(objective),
    loss({ model, params, batch, context }) {
      const hidden = model.hidden(params, batch, context);
      const sums = Array.from({ length: tokens }, (_, view) => {
        const own = scoped(params, `objective.heads.${view + 1}`);
        const states =
          view === 0 ? hidden : rmsNorm(block.forward(scoped(own, 'block'), hidden, context), own['norm.weight']);
        return tf.sum(crossEntropy(model, params, states, labelsOfView(batch.labels, view)));
      });
      return { terms: { multiToken: { sum: tf.addN(sums), weight: 1 } } };
    },
  };
}

const base = (objective) => ({
  lookahead: objective.lookahead,
  init: (rng, model) => objective.init?.(rng, model) ?? {},
  targets: (batch) => objective.targets(batch),
});

/** Highest `usedBytes` of the engine's memory during `work`. */
function peakBytes(work) {
  const pool = nativeBackend().memoryPool;
  let peak = pool.usedBytes;
  pool.allocate = (bytes) => {
    const block = Object.getPrototypeOf(pool).allocate.call(pool, bytes);
    peak = Math.max(peak, pool.usedBytes);
    return block;
  };
  try {
    work();
  } finally {
    delete pool.allocate;
  }
  return peak;
}

function hostBatch(vocabSize, lookahead) {
  const ids = (length) => Int32Array.from({ length }, (_, index) => (index * 7919) % vocabSize);
  const size = BATCH * TIME;
  return { batch: BATCH, time: TIME, lookahead, tokens: ids(size), labels: ids(size * lookahead) };
}

/** Peak memory of the second step in MiB, and milliseconds of the fastest of the following ones. */
function measure(registry, sizes, objective, { isTimed = true } = {}) {
  const pattern = [{ block: 'attention', heads: 4, repeat: BLOCKS - (objective.lookahead - 1) }];
  const model = registry.create('architecture', { name: 'decoder', dModel: WIDTH, blocks: pattern }, sizes);
  const optimizer = registry.create('optimizer', { name: 'adamw' }, {});
  const rng = keyedRng(1, 'init');
  const own = objective.init?.(rng.scope('objective'), model) ?? {};
  const params = { ...model.init(rng), ...prefixed('objective', own) };
  let state = { params, frozen: {}, optimizer: tf.tidy(() => optimizer.init(params)) };
  const length = { totalSteps: TIMED_STEPS + 2, tokensPerStep: BATCH * TIME };
  const recipe = { model, objective, optimizer, hooks: new HookDriver([]), seed: 1, length, gradClip: 1 };
  const micros = [hostBatch(sizes.vocabSize, objective.lookahead)];
  let step = 0;
  const advance = () => {
    step += 1;
    const next = trainStep(recipe, state, { info: { step, tokensSeen: 0 }, lr: 1e-4, micros });
    ({ state } = next);
    Object.values(next.scalars)[0].dataSync();
    tf.dispose(next.scalars);
  };
  advance();
  const peak = peakBytes(advance) / 2 ** 20;
  const times = Array.from({ length: isTimed ? TIMED_STEPS : 0 }, () => {
    const begin = performance.now();
    advance();
    return performance.now() - begin;
  });
  tf.dispose([...Object.values(state.params), ...stateTensors(state.optimizer)]);
  return { peak, milliseconds: Math.min(...times) };
}

export async function run() {
  if (nativeUnavailable() !== undefined) return [];
  const registry = new Registry([builtin, nativePlugin, mtp]);
  await chooseBackend({ registry, selected: { name: 'native' }, precision: 'fp32', resolveFrom: [process.cwd()] });
  const rows = [];
  for (const vocabSize of [WORDS, BYTES]) {
    const sizes = { vocabSize, contextLength: TIME };
    const create = (selected) => registry.create('objective', selected, sizes);
    const baseline = measure(registry, sizes, create({ name: 'next-token' }));
    const peak = (title, value) =>
      vocabSize === WORDS &&
      rows.push({
        name: `${title}: peak`,
        value,
        unit: 'MiB',
        ratio: value / baseline.peak,
        yardstick: 'next-token',
      });
    const time = (title, value) =>
      rows.push({
        name: `${title}: step, vocabulary ${vocabSize}`,
        value,
        unit: 'ms',
        ratio: value / baseline.milliseconds,
        yardstick: 'next-token',
      });
    peak('next-token', baseline.peak);
    time('next-token', baseline.milliseconds);
    for (const tokens of NUMBERS) {
      const parallel = create({ name: 'multi-token', tokens, head: HEAD, reads: 'hidden' });
      const sequential = create({ name: 'multi-token-sequential', tokens, block: HEAD });
      const results = [parallel, sequential].map((objective) => measure(registry, sizes, objective));
      const naive = vocabSize === WORDS && measure(registry, sizes, allAtOnce(registry, sizes, parallel), UNTIMED);
      const title = `n = ${tokens}`;
      peak(`${title}, parallel, one after another`, results[0].peak);
      peak(`${title}, parallel, all at once`, naive.peak);
      peak(`${title}, sequential, one after another`, results[1].peak);
      time(`${title}, parallel`, results[0].milliseconds);
      time(`${title}, sequential`, results[1].milliseconds);
    }
  }
  return rows;
}
