import { differentiate, keyedRng, tf } from '../tensor/index.ts';
import { expectClose, largestMagnitude } from './close.ts';

export interface GradientCheck {
  /** Step of the central difference. */
  readonly step?: number;
  /** Allowed error relative to the largest gradient of an input. */
  readonly tolerance?: number;
  /** Entries of each input that are checked, spread evenly. */
  readonly samples?: number;
}

/** sum(f(inputs) * projection) in float64, for differences small against the sum. */
function projected(f: (inputs: tf.Tensor[]) => tf.Tensor, inputs: tf.Tensor[], projection: ArrayLike<number>): number {
  const values = Array.from(tf.tidy(() => f(inputs)).dataSync());
  return values.reduce((sum, value, index) => sum + value * projection[index]!, 0);
}

/**
 * Fails unless the gradients of a random projection of `f(inputs)` agree with central differences, for float32 inputs.
 */
export function expectGradients(
  f: (inputs: tf.Tensor[]) => tf.Tensor,
  inputs: readonly tf.Tensor[],
  { step = 1e-2, tolerance = 2e-3, samples = 12 }: GradientCheck = {},
): void {
  const output = tf.tidy(() => f([...inputs]));
  const projection = keyedRng(7, 'projection').uniform('', output.shape, -1, 1);
  // What float32 rounding of the output does to a difference: a gradient that is truly 0 shows this much.
  const noise = (2 ** -22 * tf.norm(output).dataSync()[0]!) / step;
  const weights = projection.dataSync();
  const { grads } = differentiate(() => ({ result: tf.sum(tf.mul(f([...inputs]), projection)) }), inputs);
  inputs.forEach((input, which) => {
    const values = input.dataSync();
    const stride = Math.max(1, Math.floor(values.length / samples));
    const indices = Array.from({ length: Math.ceil(values.length / stride) }, (_, index) => index * stride);
    const differences = indices.map((index) => {
      const moved = (distance: number): number => {
        const copy = Float32Array.from(values);
        copy[index]! += distance;
        const changed = inputs.map((other, place) => (place === which ? tf.tensor(copy, input.shape) : other));
        return projected(f, changed, weights);
      };
      return (moved(step) - moved(-step)) / (2 * step);
    });
    const analytic = grads[which]!.dataSync();
    const limit = tolerance * largestMagnitude(grads[which]!) + noise;
    expectClose(
      indices.map((index) => analytic[index]!),
      differences,
      limit,
      `Gradient of input ${which}`,
    );
  });
}
