import { isDifferentiated, isRecording } from './tape.ts';
import { tf } from './tf.ts';

/**
 * An op with a gradient of its own.
 *
 * @param forward computes the result; `save` names what the backward pass needs (inputs or results)
 * @param backward gradients of all inputs, given that of the result and what was saved; those of inputs that are not
 *   `wanted` may be left out
 */
export function customOp(
  inputs: readonly tf.Tensor[],
  forward: (save: (tensors: readonly tf.Tensor[]) => void) => tf.Tensor,
  backward: (
    dy: tf.Tensor,
    saved: readonly tf.Tensor[],
    wanted: readonly boolean[],
  ) => readonly (tf.Tensor | undefined)[],
): tf.Tensor {
  // The engine's wrapper costs as much as a small op; decoding a token takes a hundred of them.
  if (!isRecording()) return tf.tidy(() => forward(() => {}));
  const wanted = inputs.map(isDifferentiated);
  return tf.customGrad((...args) => {
    const save = args.at(-1) as tf.GradSaveFunc;
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) =>
      // Nobody reads the numbers that stand in for gradients that nobody wants.
      backward(dy, saved, wanted).map((gradient) => gradient ?? tf.scalar(0));
    return { value: forward((tensors) => save([...tensors])), gradFunc };
  })(...inputs);
}

/** A value that a kernel understands as an attribute. */
type Attribute = number | boolean | string | readonly number[] | object;

/** Whether the active backend has the kernel. */
export const hasKernel = (name: string): boolean => tf.getKernel(name, tf.getBackend()) !== undefined;

/**
 * Runs the kernel `name` of the active backend where there is one. Kernels of llmx are named `Llmx<Op>`, those of a plugin
 * begin with a name of its own; an op without a kernel runs its composite of plain TensorFlow.js ops, which is the reference.
 */
export function runKernel(
  name: string,
  inputs: Readonly<Record<string, tf.Tensor>>,
  attributes: Readonly<Record<string, Attribute>> = {},
): tf.Tensor[] | undefined {
  if (!hasKernel(name)) return undefined;
  const outputs: tf.Tensor | tf.Tensor[] = tf
    .engine()
    .runKernel(name, { ...inputs }, attributes as unknown as tf.NamedAttrMap);
  return Array.isArray(outputs) ? outputs : [outputs];
}
