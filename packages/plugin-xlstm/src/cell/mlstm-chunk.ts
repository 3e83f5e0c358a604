import { matmul, tf, unrecorded } from '@llmx/core';

/** Queries, keys and values float32 [batch, heads, time, size]; gates before their nonlinearities [batch, heads, time]. */
export interface MlstmInputs {
  readonly query: tf.Tensor;
  readonly key: tf.Tensor;
  readonly value: tf.Tensor;
  readonly inputGate: tf.Tensor;
  readonly forgetGate: tf.Tensor;
}

/** C, n and m: float32 [batch, heads, keySize, valueSize], [batch, heads, keySize], [batch, heads]. */
export interface MlstmState {
  readonly memory: tf.Tensor;
  readonly normalizer: tf.Tensor;
  readonly maximum: tf.Tensor;
}

/** What of a chunk sees what, as 0 or `HIDDEN` to add to the logarithm of a weight. */
export interface ChunkMask {
  /** Position s from position t, [1 or batch, 1, time, time]. */
  readonly within: tf.Tensor;
  /** The state before the chunk from position t, [batch, 1, time]; absent: all see it. */
  readonly before?: tf.Tensor | undefined;
}

export interface ChunkResult {
  /** float32 [batch, heads, time, valueSize]. */
  readonly h: tf.Tensor;
  readonly state: MlstmState;
}

/** Large enough that its exponential is exactly 0, finite so that nothing is NaN. */
const HIDDEN = -1e30;

const hidden = (visible: tf.Tensor): tf.Tensor => tf.mul(tf.sub(1, tf.cast(visible, 'float32')), HIDDEN);

/** log sigmoid(x). */
export const logSigmoid = (x: tf.Tensor): tf.Tensor => tf.neg(tf.softplus(tf.neg(x)));

/**
 * Masks of positions [start, start + length).
 *
 * @param documents `documentIndex` of the whole window
 */
export function chunkMask(start: number, length: number, documents: tf.Tensor | undefined): ChunkMask {
  const places = tf.range(0, length, 1, 'int32');
  const causal = tf.expandDims(tf.lessEqual(places, tf.expandDims(places, 1)), 0); // [1, time, time]
  if (documents === undefined) return { within: tf.expandDims(hidden(causal), 1) };
  const own = tf.slice(documents, [0, start], [-1, length]);
  const last = tf.slice(documents, [0, Math.max(0, start - 1)], [-1, 1]);
  const shared = tf.equal(tf.expandDims(own, 2), tf.expandDims(own, 1));
  return {
    within: tf.expandDims(hidden(tf.logicalAnd(causal, shared)), 1),
    before: tf.expandDims(hidden(tf.equal(own, last)), 1),
  };
}

/**
 * The mLSTM over one chunk: quadratic within it, one product with the state before it (Beck et al., arXiv 2405.04517).
 * With a[t] = sum of log sigmoid(f) up to t and k' = k / sqrt(keySize):
 *
 *     D[t,s] = a[t] - a[s] + i[s],  b[t] = a[t] + m,  m[t] = max(max_s D[t,s], b[t])
 *     numerator[t]   = sum_s exp(D[t,s] - m[t]) (q[t] . k'[s]) v[s] + exp(b[t] - m[t]) C^T q[t]
 *     denominator[t] = sum_s exp(D[t,s] - m[t]) (q[t] . k'[s])      + exp(b[t] - m[t]) n . q[t]
 *     h[t] = numerator[t] / (max(|denominator[t]|, exp(-m[t])) + epsilon)
 *
 * m only keeps the exponentials in range: h depends on it through epsilon alone, and no gradient flows through it.
 *
 * @param state before the chunk; absent: zero
 */
export function mlstmChunk(
  inputs: MlstmInputs,
  state: MlstmState | undefined,
  mask: ChunkMask,
  epsilon: number,
): ChunkResult {
  const { query, key, value, inputGate, forgetGate } = inputs;
  const decay = tf.cumsum(logSigmoid(forgetGate), 2);
  const between = tf.sub(tf.expandDims(decay, 3), tf.expandDims(decay, 2));
  const within = tf.add(tf.add(between, tf.expandDims(inputGate, 2)), mask.within);
  const inherited = state === undefined ? decay : tf.add(decay, tf.expandDims(state.maximum, 2));
  const before = mask.before === undefined ? inherited : tf.add(inherited, mask.before);
  const maximum = unrecorded(() => tf.maximum(tf.max(within, -1), before)); // [batch, heads, time]
  const weights = tf.exp(tf.sub(within, tf.expandDims(maximum, 3)));
  const scaledKey = tf.mul(key, 1 / Math.sqrt(key.shape[3]!));
  const scores = tf.mul(weights, matmul(query, scaledKey, { transposeB: true }));
  const own = { numerator: matmul(scores, value), denominator: tf.sum(scores, -1) };
  const carried = state && { state, weight: tf.exp(tf.sub(before, maximum)) };
  const { numerator, denominator } = carried ? withState(own, query, carried) : own;
  const floor = unrecorded(() => tf.exp(tf.neg(maximum)));
  const divisor = tf.add(tf.maximum(tf.abs(denominator), floor), epsilon);
  return {
    h: tf.div(numerator, tf.expandDims(divisor, 3)),
    state: nextState({ scaledKey, value, weights, maximum }, carried),
  };
}

interface Carried {
  readonly state: MlstmState;
  /** Of the state at each position, [batch, heads, time]. */
  readonly weight: tf.Tensor;
}

interface Fraction {
  readonly numerator: tf.Tensor;
  readonly denominator: tf.Tensor;
}

function withState(own: Fraction, query: tf.Tensor, { state, weight }: Carried): Fraction {
  const read = matmul(query, state.memory);
  const norm = tf.squeeze(matmul(query, tf.expandDims(state.normalizer, 3)), [3]);
  return {
    numerator: tf.add(own.numerator, tf.mul(tf.expandDims(weight, 3), read)),
    denominator: tf.add(own.denominator, tf.mul(weight, norm)),
  };
}

interface ChunkParts {
  readonly scaledKey: tf.Tensor;
  readonly value: tf.Tensor;
  readonly weights: tf.Tensor;
  readonly maximum: tf.Tensor;
}

/** The state after the last position, whose weights are the last row. */
function nextState({ scaledKey, value, weights, maximum }: ChunkParts, carried: Carried | undefined): MlstmState {
  const end = maximum.shape[2]! - 1;
  const last = tf.squeeze(tf.slice(weights, [0, 0, end, 0], [-1, -1, 1, -1]), [2]);
  const weighted = tf.mul(scaledKey, tf.expandDims(last, 3));
  const added = { memory: matmul(weighted, value, { transposeA: true }), normalizer: tf.sum(weighted, 2) };
  const final = unrecorded(() => tf.squeeze(tf.slice(maximum, [0, 0, end], [-1, -1, 1]), [2]));
  if (carried === undefined) return { ...added, maximum: final };
  const kept = tf.slice(carried.weight, [0, 0, end], [-1, -1, 1]); // [batch, heads, 1]
  return {
    memory: tf.add(added.memory, tf.mul(tf.expandDims(kept, 3), carried.state.memory)),
    normalizer: tf.add(added.normalizer, tf.mul(kept, carried.state.normalizer)),
    maximum: final,
  };
}
