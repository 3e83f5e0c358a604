import {
  at,
  type Block,
  defineBlock,
  definePlugin,
  dims,
  LlmxError,
  type Params,
  type StateTree,
  tf,
  z,
} from '@llmx/core';

const PROJECTIONS = ['query', 'key', 'value', 'output'];

/** Decay per head, float32 [heads, 1, 1]: gamma = 1 - 2 ** (-5 - head). */
const decayOf = (heads: number): tf.Tensor =>
  tf.reshape(tf.sub(1, tf.pow(2, tf.sub(-5, tf.range(0, heads)))), [heads, 1, 1]);

/** gamma ** (n - m) where m <= n, else 0: float32 [heads, time, time]. */
function decayMask(heads: number, time: number): tf.Tensor {
  const position = tf.range(0, time);
  const lag = tf.sub(tf.expandDims(position, 1), tf.expandDims(position, 0)); // [time, time]
  return tf.where(tf.greaterEqual(lag, 0), tf.pow(decayOf(heads), tf.relu(lag)), 0);
}

/** 1 where two positions belong to one document, else 0: float32 [batch, 1, time, time]. */
function sameDocument(segments: tf.Tensor): tf.Tensor {
  const equal = tf.equal(tf.expandDims(segments, 2), tf.expandDims(segments, 1));
  return tf.cast(tf.expandDims(equal, 1), 'float32');
}

/** x scaled to a root mean square of 1 over its last axis. */
const normalized = (x: tf.Tensor): tf.Tensor => tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-6)));

/** float32 [batch, time, dModel] by a matrix [dModel, dModel]. */
function projected(params: Params, name: string, x: tf.Tensor): tf.Tensor {
  const [, , dModel] = dims(x, 3);
  return tf.reshape(tf.matMul(tf.reshape(x, [-1, dModel]), at(params, `retention.${name}`)), x.shape);
}

/** x + output(retained), the heads of `retained`, [batch, heads, time, headSize], joined and normalized. */
const residual = (params: Params, x: tf.Tensor, retained: tf.Tensor): tf.Tensor =>
  tf.add(x, projected(params, 'output', tf.reshape(tf.transpose(normalized(retained), [0, 2, 1, 3]), x.shape)));

/** What the last step added, for taking part of it back. */
interface Latest {
  readonly past: tf.Tensor;
  readonly key: tf.Tensor;
  readonly value: tf.Tensor;
}

/**
 * The past as one matrix per head, float32 [batch, heads, headSize, headSize], after new positions:
 *
 *     memory(n) = gamma memory(n - 1) + key(n)^T value(n)
 */
function remember(past: tf.Tensor, key: tf.Tensor, value: tf.Tensor): tf.Tensor {
  const [, heads, time] = dims(key, 4);
  const gamma = decayOf(heads);
  const age = tf.expandDims(tf.range(0, time), 1);
  const remembered = tf.mul(key, tf.pow(gamma, tf.sub(time - 1, age)));
  return tf.add(tf.mul(past, tf.pow(gamma, time)), tf.matMul(remembered, value, true));
}

const retention = defineBlock({
  name: 'retention',
  summary: 'Multi-scale retention: linear attention whose past decays exponentially, per head.',
  paper: 'https://arxiv.org/abs/2307.08621',
  config: z.strictObject({ heads: z.int().min(1).default(4).describe('Heads; they divide dModel.') }),
  build({ heads }, { dModel }): Block {
    if (dModel % heads !== 0) {
      throw new LlmxError('LLMX_CONFIG_INVALID', `dModel ${dModel} is not a multiple of heads ${heads}.`, {
        hint: 'Choose a number of heads that divides it.',
      });
    }
    const headSize = dModel / heads;
    const heading = (params: Params, name: string, x: tf.Tensor): tf.Tensor => {
      const [batch, time] = dims(x, 3);
      return tf.transpose(tf.reshape(projected(params, name, x), [batch, time, heads, headSize]), [0, 2, 1, 3]);
    };
    const inputs = (params: Params, x: tf.Tensor) => {
      const y = normalized(x);
      const query = tf.div(heading(params, 'query', y), Math.sqrt(headSize));
      return { query, key: heading(params, 'key', y), value: heading(params, 'value', y) }; // [batch, heads, time, headSize]
    };
    return {
      unbounded: true,
      init: (rng) =>
        Object.fromEntries(
          PROJECTIONS.map((name) => [`retention.${name}`, rng.normal(`retention.${name}`, [dModel, dModel], 0.02)]),
        ),
      forward(params, x, { segments }) {
        const { query, key, value } = inputs(params, x);
        const [, time] = dims(x, 3);
        const decay = decayMask(heads, time);
        const mask = segments === undefined ? decay : tf.mul(decay, sameDocument(segments));
        return residual(params, x, tf.matMul(tf.mul(tf.matMul(query, key, false, true), mask), value));
      },
      initialState: (batch) => ({ memory: tf.zeros([batch, heads, headSize, headSize]) }),
      step(params, x, state, { rewindable }) {
        const { query, key, value } = inputs(params, x);
        const [, time] = dims(x, 3);
        const { memory: past } = state as { memory: tf.Tensor };
        const age = tf.expandDims(tf.range(0, time), 1); // [time, 1]
        const among = tf.matMul(tf.mul(tf.matMul(query, key, false, true), decayMask(heads, time)), value);
        const before = tf.matMul(tf.mul(query, tf.pow(decayOf(heads), tf.add(age, 1))), past);
        const memory = remember(past, key, value);
        const next: StateTree = rewindable === true ? { memory, latest: { past, key, value } } : { memory };
        return { x: residual(params, x, tf.add(among, before)), state: next };
      },
      rewind(_params, state, count) {
        const { past, key, value } = (state as unknown as { latest: Latest }).latest;
        const first = (tensor: tf.Tensor) => tf.slice(tensor, [0, 0, 0, 0], [-1, -1, key.shape[2]! - count, -1]);
        return { memory: remember(past, first(key), first(value)) };
      },
    };
  },
});

export default definePlugin({
  name: 'llmx-plugin-retention',
  version: '1.0.0',
  llmx: '>=0.1.0',
  components: [retention],
});
