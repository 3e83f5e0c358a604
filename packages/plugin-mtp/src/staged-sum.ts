import { accumulated, customOp, differentiate, isDifferentiated, scaled, tf, unrecorded } from '@llmx/core';

/** One part of a sum of losses. */
export interface Stage<T extends tf.TensorContainerObject> {
  /** The float32 tensors that gradients go to: everything differentiable that `run` depends on. */
  readonly inputs: readonly tf.Tensor[];
  /** `loss`: the part's share of the sum, float32 scalar; `kept`: what else is wanted of it, without gradients. */
  run(): { readonly loss: tf.Tensor; readonly kept: T };
}

/** Gradients by input, added up as stages come. Owns what it holds. */
class Sums {
  readonly #sums = new Map<tf.Tensor, tf.Tensor>();

  add(inputs: readonly tf.Tensor[], gradients: readonly tf.Tensor[]): void {
    for (const [index, input] of inputs.entries()) {
      const gradient = gradients[index]!;
      const sum = this.#sums.get(input);
      this.#sums.set(input, sum === undefined ? gradient : accumulated(sum, gradient));
      if (sum !== undefined) tf.dispose([sum, gradient]);
    }
  }

  get inputs(): tf.Tensor[] {
    return [...this.#sums.keys()];
  }

  get gradients(): tf.Tensor[] {
    return [...this.#sums.values()];
  }
}

/** `value`, a scalar, with given derivatives by its inputs; consumes both. */
function withGradients(value: tf.Tensor, inputs: readonly tf.Tensor[], gradients: readonly tf.Tensor[]): tf.Tensor {
  const result = customOp(
    inputs,
    (save) => {
      save(gradients);
      return value.clone();
    },
    // Walked once, so a saved gradient may become the scaled one in place.
    (dy, saved) => saved.map((gradient) => scaled(gradient, dy, true)),
  );
  tf.dispose([value, ...gradients]);
  return result;
}

/**
 * The sum of the stages' losses. Each stage runs forward and at once backward, and what it allocated is freed before the
 * next one begins; the gradients of inputs that stages share are added up on the way. So memory holds the logits of one
 * stage, and one gradient per input, whatever the number of stages (Gloeckle et al. 2024, section 2).
 */
export function stagedSum<T extends tf.TensorContainerObject>(
  stages: readonly Stage<T>[],
): { sum: tf.Tensor; kept: T[] } {
  // Not frozen parameters, nor what depends on them alone.
  const wanted = stages.map(({ inputs }) => inputs.filter(isDifferentiated));
  const sums = new Sums();
  const results = unrecorded(() =>
    stages.map((stage, index) => {
      const inputs = wanted[index]!;
      const { grads, result, kept } = tf.tidy(() => {
        const run = () => {
          const { loss, kept: extra } = stage.run();
          return { result: loss, kept: extra };
        };
        if (inputs.length === 0) return { ...run(), grads: [] as tf.Tensor[] };
        const { value, grads: gradients } = differentiate(run, inputs);
        return { ...value, grads: gradients };
      });
      sums.add(inputs, grads);
      return { result, kept };
    }),
  );
  const sum = unrecorded(() => tf.addN(results.map(({ result }) => result)));
  results.forEach(({ result }) => result.dispose());
  return {
    sum: sums.inputs.length > 0 ? withGradients(sum, sums.inputs, sums.gradients) : sum,
    kept: results.map(({ kept }) => kept),
  };
}
