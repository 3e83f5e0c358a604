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
 * @param query float32 [batch, heads, queryTime, headSize]
 * @param key float32 [batch, kvHeads, keyTime, headSize]; heads is a multiple of kvHeads
 * @param value float32 [batch, kvHeads, keyTime, headSize]
 * @returns float32 [batch, heads, queryTime, headSize]
 */
export function causalAttention(
  query: tf.Tensor,
  key: tf.Tensor,
  value: tf.Tensor,
  options: AttentionOptions = {},
): tf.Tensor {
  const [batch, heads, queryTime, headSize] = dims(query, 4);
  const [, kvHeads, keyTime] = dims(key, 4);
  assert(heads % kvHeads === 0, `${heads} query heads cannot share ${kvHeads} key heads.`);
  const scale = 1 / Math.sqrt(headSize);
  const window = options.window !== undefined && options.window < keyTime ? options.window : undefined;
  const segments = options.segments === undefined ? {} : { segments: options.segments };
  const attributes = window === undefined ? { scale } : { scale, window };
  // The queries that share a key head become more rows of one product.
  const grouped = (x: tf.Tensor): tf.Tensor => tf.reshape(x, [batch * kvHeads, -1, headSize]);
  const perHead = (x: tf.Tensor): tf.Tensor => tf.reshape(x, [batch * heads, queryTime, keyTime]);
  const perGroup = (x: tf.Tensor): tf.Tensor => tf.reshape(x, [batch * kvHeads, -1, keyTime]);

  return customOp(
    [query, key, value],
    (save) => {
      const [output, ...kernelSaved] = runKernel('LlmxAttention', { query, key, value, ...segments }, attributes) ?? [];
      if (output !== undefined) {
        save([query, key, value, output, ...kernelSaved]);
        return output;
      }
      const scores = multiply(grouped(query), grouped(key), { transposeB: true });
      const bias = mask(queryTime, keyTime, { window, ...segments });
      const probabilities = weights(perHead(scores), scale, bias, batch);
      save([query, key, value, probabilities]);
      return tf.reshape(multiply(perGroup(probabilities), grouped(value)), query.shape);
    },
    (dy, saved) => {
      const [q, k, v, last, ...kernelSaved] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, ...tf.Tensor[]];
      if (kernelSaved.length > 0) {
        const named = Object.fromEntries(kernelSaved.map((tensor, index) => [`saved${index}`, tensor]));
        const inputs = { dy, query: q, key: k, value: v, output: last, ...named, ...segments };
        return runKernel('LlmxAttentionGrad', inputs, attributes)!;
      }
      const probabilities = perGroup(last);
      const dOutput = grouped(dy);
      const dValue = multiply(probabilities, dOutput, { transposeA: true });
      const dProbabilities = multiply(dOutput, grouped(v), { transposeB: true });
      // Softmax: ds = p * (dp - sum(dp * p)).
      const weighted = tf.mul(dProbabilities, probabilities);
      const dScores = tf.sub(weighted, tf.mul(probabilities, tf.sum(weighted, -1, true)));
      const dQuery = tf.mul(multiply(dScores, grouped(k)), scale);
      const dKey = tf.mul(multiply(dScores, grouped(q), { transposeA: true }), scale);
      return [tf.reshape(dQuery, q.shape), tf.reshape(dKey, k.shape), tf.reshape(dValue, v.shape)];
    },
  );
}
