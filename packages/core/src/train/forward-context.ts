import type { Batch, ForwardContext, HostBatch } from '../plugin/types.ts';
import { dims, randomKey, tf, uniformValues } from '../tensor/index.ts';

/** A micro-batch as tensors; the caller disposes them. */
export function upload(host: HostBatch): Batch {
  const { batch, time, lookahead, tokens, labels, segments, positions } = host;
  const matrix = (values: Int32Array) => tf.tensor2d(values, [batch, time], 'int32');
  return {
    tokens: matrix(tokens),
    labels: tf.tensor3d(labels, [batch, time, lookahead], 'int32'),
    ...(segments && { segments: matrix(segments) }),
    ...(positions && { positions: matrix(positions) }),
  };
}

/** Circumstances of evaluation: nothing is dropped. */
export const EVALUATION: ForwardContext = { training: false, dropout: (x) => x };

/** Keys the random numbers of one micro-batch. */
export interface DropoutKey {
  readonly seed: number;
  readonly step: number;
  /** Rows of the step before this micro-batch, so that accumulation changes nothing. */
  readonly firstRow: number;
}

/** Circumstances of training: dropout keyed by (seed, step, name, row of the step). */
export function trainingContext({ seed, step, firstRow }: DropoutKey): ForwardContext {
  return {
    training: true,
    dropout(x, rate, name) {
      if (rate === 0) return x;
      const [batch, ...rest] = dims(x, 3);
      const perRow = rest[0] * rest[1];
      const kept = uniformValues(randomKey(seed, 'dropout', `${step}/${name}`), batch * perRow, firstRow * perRow);
      const scale = Float32Array.from(kept, (value) => (value < rate ? 0 : 1 / (1 - rate)));
      return tf.mul(x, tf.tensor(scale, x.shape));
    },
  };
}
