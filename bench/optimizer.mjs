// Time of one optimizer step for 10 M parameters, beside core's AdamW, on every backend that works here.
import native from '../packages/backend-native/dist/index.js';
import schedulefree from '../packages/plugin-schedulefree/dist/index.js';
import {
  builtin,
  chooseBackend,
  mapParams,
  probeBackends,
  Registry,
  stateTensors,
  tf,
} from '../packages/core/dist/index.js';

export const name = 'optimizer';

const STEPS = 9;
// 20 matrices of 512 x 1024.
const MATRICES = 20;
const SHAPE = [512, 1024];
const OPTIMIZERS = [
  { name: 'adamw' },
  { name: 'adamw-schedulefree' },
  { name: 'sgd-schedulefree' },
  { name: 'radam-schedulefree' },
  { name: 'schedule-free', base: { name: 'lion' } },
  { name: 'adamc-schedulefree-plus' },
];

/** Median milliseconds of a step, the first two left out. */
function milliseconds(optimizer, start, grads) {
  let params = mapParams(start, (value) => value.clone());
  let state = tf.tidy(() => optimizer.init(params));
  const loss = tf.scalar(1);
  const times = Array.from({ length: STEPS + 2 }, (_, index) => {
    const begin = performance.now();
    const next = tf.tidy(() => optimizer.update({ grads, params, state, lr: 1e-3, step: index + 1, loss }));
    Object.values(next.params)[0].dataSync();
    const time = performance.now() - begin;
    tf.dispose([...Object.values(params), ...stateTensors(state)]);
    ({ params, state } = next);
    return time;
  }).slice(2);
  tf.dispose([...Object.values(params), ...stateTensors(state), loss]);
  return times.toSorted((a, b) => a - b)[Math.floor(STEPS / 2)];
}

export async function run() {
  const registry = new Registry([builtin, native, schedulefree]);
  const request = { registry, precision: 'fp32', resolveFrom: [process.cwd()] };
  const working = (await probeBackends({ ...request, selected: { name: 'auto' } })).filter(
    ({ reason }) => reason === undefined,
  );
  const rows = [];
  for (const { name: backend } of working) {
    await chooseBackend({ ...request, selected: { name: backend } });
    const tensors = (scale) =>
      Object.fromEntries(
        Array.from({ length: MATRICES }, (_, index) => [`w${index}`, tf.randomNormal(SHAPE, 0, scale)]),
      );
    const [params, grads] = [tensors(1), tensors(0.1)];
    let yardstick;
    for (const selected of OPTIMIZERS) {
      const value = milliseconds(registry.create('optimizer', selected, {}), params, grads);
      yardstick ??= value;
      const title = selected.base === undefined ? selected.name : `${selected.name} ${selected.base.name}`;
      rows.push({ name: `${backend}: ${title}`, value, unit: 'ms', ratio: value / yardstick, yardstick: 'adamw' });
    }
    tf.dispose([params, grads]);
  }
  return rows;
}
