import { tf } from './tf.ts';

/**
 * An op with a gradient of its own.
 *
 * @param forward computes the result; `save` names what the backward pass needs (inputs or results)
 * @param backward gradients of all inputs, given that of the result and what was saved
 */
export function customOp(
  inputs: readonly tf.Tensor[],
  forward: (save: (tensors: readonly tf.Tensor[]) => void) => tf.Tensor,
  backward: (dy: tf.Tensor, saved: readonly tf.Tensor[]) => tf.Tensor[],
): tf.Tensor {
  return tf.customGrad((...args) => {
    const save = args.at(-1) as tf.GradSaveFunc;
    return { value: forward((tensors) => save([...tensors])), gradFunc: backward };
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
