// Multi-token prediction on the C++ engine: peak memory of a training step and its time, for n tokens ahead and one total
// number of blocks, as in the paper: each head beyond the first takes a block of the model. `one after another` is how the
// objectives run; `all at once` computes the losses of `multi-token` and differentiates them together. Linear heads stand
// on the whole model.
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
const TIMED_ROUNDS = 5;

/** The losses of `multi-token`, from the same parameters, all recorded and then differentiated. */
function allAtOnce(registry, sizes, objective) {
  const { lookahead: tokens } = objective;
  const block = registry.create('block', HEAD, { ...sizes, dModel: WIDTH, index: 0, depth: tokens });
  return {
    ...base(objective),
    loss({ model, params, batch, context }) {
      const { trunk, hidden } = model.fork(params, batch, context);
      const sums = Array.from({ length: tokens }, (_, view) => {
        const own = scoped(params, `objective.heads.${view + 1}`);
        const states =
          view === 0 ? hidden : model.lastNorm(params, block.forward(scoped(own, 'block'), trunk, context));
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

/** A model in training with that objective, on one batch. */
class Training {
  #recipe;
  #micros;
  #state;
  #step = 0;

  constructor(registry, { vocabSize }, { objective, blocks }) {
    const sizes = { vocabSize, contextLength: TIME };
    const pattern = [{ block: 'attention', heads: 4, repeat: blocks }];
    const model = registry.create('architecture', { name: 'decoder', dModel: WIDTH, blocks: pattern }, sizes);
    const optimizer = registry.create('optimizer', { name: 'adamw' }, {});
    const rng = keyedRng(1, 'init');
    const own = objective.init?.(rng.scope('objective'), model) ?? {};
    const params = { ...model.init(rng), ...prefixed('objective', own) };
    this.#state = { params, frozen: {}, optimizer: tf.tidy(() => optimizer.init(params)) };
    const length = { totalSteps: TIMED_ROUNDS + 1, tokensPerStep: BATCH * TIME };
    this.#recipe = { model, objective, optimizer, hooks: new HookDriver([]), seed: 1, length, gradClip: 1 };
    this.#micros = [hostBatch(vocabSize, objective.lookahead)];
  }

  step() {
    this.#step += 1;
    const info = { step: this.#step, tokensSeen: 0 };
    const next = trainStep(this.#recipe, this.#state, { info, lr: 1e-4, micros: this.#micros });
    this.#state = next.state;
    Object.values(next.scalars)[0].dataSync();
    tf.dispose(next.scalars);
  }

  /** Milliseconds of a step. */
  time() {
    const begin = performance.now();
    this.step();
    return performance.now() - begin;
  }

  dispose() {
    tf.dispose([...Object.values(this.#state.params), ...stateTensors(this.#state.optimizer)]);
  }
}

/** Peak memory of the second step in MiB. */
function peakOf(training) {
  training.step();
  const peak = peakBytes(() => training.step()) / 2 ** 20;
  training.dispose();
  return peak;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Median milliseconds of a step of each, and the median of its ratio to the first; all take turns. */
function timesOf(trainings) {
  for (const training of trainings) training.step();
  const rounds = Array.from({ length: TIMED_ROUNDS }, () => trainings.map((training) => training.time()));
  for (const training of trainings) training.dispose();
  return trainings.map((_, index) => ({
    milliseconds: median(rounds.map((times) => times[index])),
    ratio: median(rounds.map((times) => times[index] / times[0])),
  }));
}

/** What is measured, by title: objectives and the number of blocks of the model below them. */
function arms(create, { numbers, isTimed }) {
  const nextToken = { title: 'next-token', objective: create({ name: 'next-token' }), blocks: BLOCKS };
  const further = numbers.flatMap((tokens) => {
    const blocks = BLOCKS - (tokens - 1);
    const parallel = { name: 'multi-token', reads: 'trunk', head: HEAD };
    const linear = { name: 'multi-token', reads: 'hidden', head: 'linear' };
    const sequential = { name: 'multi-token-sequential', block: HEAD };
    const arm = (title, selected, depth) => ({
      title: `n = ${tokens}, ${title}`,
      objective: create({ ...selected, tokens }),
      blocks: depth,
    });
    return [
      arm('parallel', parallel, blocks),
      arm('sequential', sequential, blocks),
      ...(isTimed ? [arm('linear', linear, BLOCKS)] : []),
    ];
  });
  return [nextToken, ...further];
}

function memoryRows(registry, create) {
  const sizes = { vocabSize: WORDS, contextLength: TIME };
  const measured = arms(create, { numbers: NUMBERS, isTimed: false }).flatMap(({ title, objective, blocks }) => {
    const peak = (given) => peakOf(new Training(registry, sizes, { objective: given, blocks }));
    const own = { name: `${title}, one after another: peak`, value: peak(objective) };
    if (!title.endsWith('parallel')) return [own];
    const naive = peak(allAtOnce(registry, sizes, objective));
    return [own, { name: `${title}, all at once: peak`, value: naive }];
  });
  const [{ value: baseline }] = measured;
  return measured.map((row) => ({ ...row, unit: 'MiB', ratio: row.value / baseline, yardstick: 'next-token' }));
}

function timeRows(registry, create, vocabSize) {
  const numbers = NUMBERS.filter((tokens) => tokens > 1);
  const measured = arms(create, { numbers, isTimed: true });
  const times = timesOf(measured.map((arm) => new Training(registry, { vocabSize }, arm)));
  return measured.map(({ title }, index) => ({
    name: `${title}: step, vocabulary ${vocabSize}`,
    value: times[index].milliseconds,
    unit: 'ms',
    ratio: times[index].ratio,
    yardstick: 'next-token',
  }));
}

export async function run() {
  if (nativeUnavailable() !== undefined) return [];
  const registry = new Registry([builtin, nativePlugin, mtp]);
  await chooseBackend({ registry, selected: { name: 'native' }, precision: 'fp32', resolveFrom: [process.cwd()] });
  const creator = (vocabSize) => (selected) =>
    registry.create('objective', selected, { vocabSize, contextLength: TIME });
  return [
    ...memoryRows(registry, creator(WORDS)),
    ...[WORDS, BYTES].flatMap((vocabSize) => timeRows(registry, creator(vocabSize), vocabSize)),
  ];
}
