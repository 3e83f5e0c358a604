import { assert } from '../../errors/index.ts';
import { customOp, runKernel } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';
import { multiply } from './matmul.ts';

export interface AttentionOptions {
  /** Each position sees at most this many positions, itself included; absent: all earlier ones. */
  readonly window?: number | undefined;
  /** Document of each key position, int32 [batch, keyTime]; queries are the last positions. */
  readonly segments?: tf.Tensor | undefined;
}

// Added to a score that must not count: large enough that its exponential is exactly 0, finite so that nothing is NaN.
const MASKED = -1e30;

/** 0 where a query sees a key, `MASKED` elsewhere: [1, queryTime, keyTime], or [batch, ...] with segments. */
function mask(queryTime: number, keyTime: number, { window, segments }: AttentionOptions): tf.Tensor {
  const keys = tf.range(0, keyTime, 1, 'int32');
  const queries = tf.reshape(tf.range(keyTime - queryTime, keyTime, 1, 'int32'), [queryTime, 1]);
  let visible = tf.lessEqual(keys, queries);
  if (window !== undefined)
    visible = tf.logicalAnd(visible, tf.greater(keys, tf.sub(queries, tf.scalar(window, 'int32'))));
  visible = tf.expandDims(visible, 0);
  if (segments !== undefined) {
    const ofQueries = tf.slice(segments, [0, keyTime - queryTime], [-1, -1]);
    visible = tf.logicalAnd(visible, tf.equal(tf.expandDims(ofQueries, 2), tf.expandDims(segments, 1)));
  }
  return tf.mul(tf.sub(1, tf.cast(visible, 'float32')), MASKED);
}

/** Softmax of scaled, masked scores: [batch, kvHeads, group, queryTime, keyTime] as [batch * heads, ...]. */
function weights(scores: tf.Tensor, scale: number, bias: tf.Tensor, batch: number): tf.Tensor {
  const [, queryTime, keyTime] = dims(scores, 3);
  const scaled = tf.mul(scores, scale);
  const [biasBatch] = dims(bias, 3);
  if (biasBatch === 1) return tf.softmax(tf.add(scaled, bias));
  const perRow = tf.reshape(scaled, [batch, -1, queryTime, keyTime]);
  return tf.softmax(tf.reshape(tf.add(perRow, tf.expandDims(bias, 1)), scores.shape));
}

/**
 * Causal scaled dot-product attention with grouped queries (Vaswani et al., arXiv 1706.03762; Ainslie et al.,
 * arXiv 2305.13245): softmax(q k^T / sqrt(headSize)) v over visible positions. Queries are the last `queryTime` of
 * `keyTime` positions. The composite holds the weights [batch * heads, queryTime, keyTime]; the kernels
 * `LlmxAttention` and `LlmxAttentionGrad` need not.
 *
 * @param query float32 [batch, queryTime, heads, headSize]
 * @param key float32 [batch, keyTime, kvHeads, headSize]; heads is a multiple of kvHeads
 * @param value float32 [batch, keyTime, kvHeads, headSize]
 * @returns float32 [batch, queryTime, heads, headSize]
 */
export function causalAttention(
  query: tf.Tensor,
  key: tf.Tensor,
  value: tf.Tensor,
  options: AttentionOptions = {},
): tf.Tensor {
  const [, , heads, headSize] = dims(query, 4);
  const [, keyTime, kvHeads] = dims(key, 4);
  assert(heads % kvHeads === 0, `${heads} query heads cannot share ${kvHeads} key heads.`);
  const scale = 1 / Math.sqrt(headSize);
  const window = options.window !== undefined && options.window < keyTime ? options.window : undefined;
  const segments = options.segments === undefined ? {} : { segments: options.segments };
  const attributes = window === undefined ? { scale } : { scale, window };

  return customOp(
    [query, key, value],
    (save) => {
      const [output, ...kernelSaved] = runKernel('LlmxAttention', { query, key, value, ...segments }, attributes) ?? [];
      if (output !== undefined) {
        save([query, key, value, output, ...kernelSaved]);
        return output;
      }
      const [result, probabilities] = attend(query, key, value, { window, ...segments });
      save([query, key, value, probabilities]);
      return result;
    },
    (dy, saved) => {
      const [q, k, v, last, ...kernelSaved] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, ...tf.Tensor[]];
      if (kernelSaved.length === 0) return attentionGradients(dy, q, k, v, last);
      const named = Object.fromEntries(kernelSaved.map((tensor, index) => [`saved${index}`, tensor]));
      const inputs = { dy, query: q, key: k, value: v, output: last, ...named, ...segments };
      return runKernel('LlmxAttentionGrad', inputs, attributes)!;
    },
  );
}

/** [batch, time, heads, size] as [batch * groups, heads / groups * time, size]: queries that share a key are one product. */
function perGroup(x: tf.Tensor, groups: number): tf.Tensor {
  const [batch, , , size] = dims(x, 4);
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch * groups, -1, size]);
}

/** The inverse of `perGroup`. */
function perPosition(x: tf.Tensor, shape: readonly number[]): tf.Tensor {
  const [batch, time, heads, size] = shape as [number, number, number, number];
  return tf.transpose(tf.reshape(x, [batch, heads, time, size]), [0, 2, 1, 3]);
}

/** Output and weights, the latter as float32 [batch * kvHeads, group * queryTime, keyTime]. */
function attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, options: AttentionOptions): [tf.Tensor, tf.Tensor] {
  const [batch, queryTime, heads, headSize] = dims(query, 4);
  const [, keyTime, kvHeads] = dims(key, 4);
  const scores = multiply(perGroup(query, kvHeads), perGroup(key, kvHeads), { transposeB: true });
  const bias = mask(queryTime, keyTime, options);
  const perHead = tf.reshape(scores, [batch * heads, queryTime, keyTime]);
  const probabilities = tf.reshape(weights(perHead, 1 / Math.sqrt(headSize), bias, batch), scores.shape);
  return [perPosition(multiply(probabilities, perGroup(value, kvHeads)), query.shape), probabilities];
}

/** Gradients of query, key and value, given the weights. */
function attentionGradients(
  dy: tf.Tensor,
  query: tf.Tensor,
  key: tf.Tensor,
  value: tf.Tensor,
  probabilities: tf.Tensor,
): tf.Tensor[] {
  const [, , kvHeads, headSize] = dims(key, 4);
  const [dOutput, q, k, v] = [dy, query, key, value].map((x) => perGroup(x, kvHeads)) as [
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
  ];
  const scale = 1 / Math.sqrt(headSize);
  const dValue = multiply(probabilities, dOutput, { transposeA: true });
  const dProbabilities = multiply(dOutput, v, { transposeB: true });
  // Softmax: ds = p * (dp - sum(dp * p)).
  const weighted = tf.mul(dProbabilities, probabilities);
  const dScores = tf.sub(weighted, tf.mul(probabilities, tf.sum(weighted, -1, true)));
  const dQuery = tf.mul(multiply(dScores, k), scale);
  const dKey = tf.mul(multiply(dScores, q, { transposeA: true }), scale);
  return [perPosition(dQuery, query.shape), perPosition(dKey, key.shape), perPosition(dValue, value.shape)];
}
