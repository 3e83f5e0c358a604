import { tf } from '@llmx/core';

/** Document that each position belongs to, counted from 0 along its row: int32 [batch, time]. It never decreases. */
export function documentIndex(segments: tf.Tensor): tf.Tensor {
  return tf.tidy(() => {
    const time = segments.shape[1]!;
    if (time === 1) return tf.zerosLike(segments);
    const changes = tf.notEqual(tf.slice(segments, [0, 1], [-1, -1]), tf.slice(segments, [0, 0], [-1, time - 1]));
    return tf.cumsum(
      tf.pad(tf.cast(changes, 'int32'), [
        [0, 0],
        [1, 0],
      ]),
      1,
    );
  });
}
