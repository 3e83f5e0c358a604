import { customOp, runKernel } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';

export interface RotaryOptions {
  /** Base of the wavelengths; 10,000 in the paper. */
  readonly base: number;
  /** Position of the first row where `positions` is absent. */
  readonly offset?: number;
  /** Position of each row, int32 [batch, time]. */
  readonly positions?: tf.Tensor | undefined;
}

/** Up to so many consecutive positions, as in decoding, angles cost less here than as ops of the backend. */
const FEW_ROWS = 16;

/** Cosines and sines of position * base^(-2 i / size), float32 [batch or 1, time, 1, size / 2]. */
function angles(time: number, size: number, { base, offset = 0, positions }: RotaryOptions): [tf.Tensor, tf.Tensor] {
  const frequencies = Float32Array.from({ length: size / 2 }, (_, i) => base ** ((-2 * i) / size));
  if (positions === undefined && time <= FEW_ROWS) return anglesFrom(offset, time, frequencies);
  const row = positions === undefined ? tf.range(offset, offset + time) : tf.cast(positions, 'float32');
  const angle = tf.mul(tf.reshape(row, [-1, time, 1, 1]), tf.reshape(tf.tensor1d(frequencies), [1, 1, 1, size / 2]));
  return [tf.cos(angle), tf.sin(angle)];
}

/** `angles` of the positions from `offset` on. */
function anglesFrom(offset: number, time: number, frequencies: Float32Array): [tf.Tensor, tf.Tensor] {
  const count = frequencies.length;
  const [cos, sin] = [new Float32Array(time * count), new Float32Array(time * count)];
  for (let row = 0; row < time; row++)
    for (let i = 0; i < count; i++) {
      const angle = Math.fround((offset + row) * frequencies[i]!);
      cos[row * count + i] = Math.cos(angle);
      sin[row * count + i] = Math.sin(angle);
    }
  const shape: [number, number, number, number] = [1, time, 1, count];
  return [tf.tensor4d(cos, shape), tf.tensor4d(sin, shape)];
}

/** Rotates pairs (i, i + size / 2) by the angle, or back. */
function rotate(x: tf.Tensor, cos: tf.Tensor, sin: tf.Tensor): tf.Tensor {
  const [first, second] = tf.split(x, 2, -1) as [tf.Tensor, tf.Tensor];
  return tf.concat(
    [tf.sub(tf.mul(first, cos), tf.mul(second, sin)), tf.add(tf.mul(second, cos), tf.mul(first, sin))],
    -1,
  );
}

/**
 * The rotation of float32 [batch, time, heads, size] by `rotary`, as a function, whose angles are computed once for all tensors
 * that it is called with.
 */
export function rotation(time: number, size: number, options: RotaryOptions): (x: tf.Tensor) => tf.Tensor {
  const [cos, sin] = angles(time, size, options);
  const apply = (x: tf.Tensor, ofCos: tf.Tensor, ofSin: tf.Tensor): tf.Tensor =>
    runKernel('LlmxRotary', { x, cos: ofCos, sin: ofSin })?.[0] ?? rotate(x, ofCos, ofSin);
  return (x) =>
    customOp(
      [x],
      (save) => {
        save([cos, sin]);
        return apply(x, cos, sin);
      },
      (dy, [savedCos, savedSin]) => [apply(dy, savedCos!, tf.neg(savedSin!))],
    );
}

/**
 * Rotary position embedding (Su et al., arXiv 2104.09864) with pairs (i, i + size / 2), the layout of Llama weights.
 *
 * @param x float32 [batch, time, heads, size], size even
 */
export function rotary(x: tf.Tensor, options: RotaryOptions): tf.Tensor {
  const [, time, , size] = dims(x, 4);
  return rotation(time, size, options)(x);
}
