/**
 * Reverse-mode differentiation over TensorFlow.js's tape.
 *
 * The library's own driver cannot be nested (it loses the outer tape), keeps every saved activation and every
 * intermediate gradient until the backward pass has ended, and fails on masks computed from differentiable values.
 * This one records with the library, walks the tape itself, and frees as it goes.
 */
import { LlmxError } from '../errors/index.ts';
import type { Params } from '../plugin/types.ts';
import { accumulated } from './in-place.ts';
import { disposeSaved, hasTape, isRecording, record, type Tape, type TapeNode, unrecorded } from './tape.ts';
import { tf } from './tf.ts';

/** Gradients by tensor id while the tape is walked. Owns what it holds. */
class GradientMap {
  readonly #gradients = new Map<number, tf.Tensor>();

  add(id: number, gradient: tf.Tensor): void {
    const sum = this.#gradients.get(id);
    this.#gradients.set(id, sum === undefined ? gradient : accumulated(sum, gradient));
    if (sum !== undefined) tf.dispose([sum, gradient]);
  }

  take(id: number): tf.Tensor | undefined {
    const gradient = this.#gradients.get(id);
    this.#gradients.delete(id);
    return gradient;
  }
}

/** The gradients of the walk that is under way. */
let current: GradientMap | undefined;

/**
 * Within the backward pass of an op: what has come together of the gradient of its input `x` so far, if anything. It is the
 * caller's from then on, who disposes it and adds it to the gradient that the op returns. For ops whose gradient touches
 * little of a large tensor, or can add to what is there on its way to memory. Nothing within TensorFlow.js's own driver.
 */
export const takeGradient = (x: tf.Tensor): tf.Tensor | undefined => (hasTape() ? undefined : current?.take(x.id));

/** Gradients of a node's inputs, in the order of `inputs`, given those of its outputs. */
function backwardNode(node: TapeNode, dys: (tf.Tensor | null)[], inputs: readonly string[]): tf.Tensor[] {
  if (node.gradient === undefined)
    throw new LlmxError('LLMX_GRADIENT_MISSING', `TensorFlow.js has no gradient for the op ${node.kernelName}.`, {
      hint: 'Use the ops of @llmx/core, or wrap the op in tf.customGrad.',
    });
  const partials = node.gradient(dys);
  return inputs.map((name) => {
    const partial = partials[name];
    if (partial === undefined)
      throw new LlmxError(
        'LLMX_GRADIENT_MISSING',
        `The op ${node.kernelName} has no gradient for its input "${name}".`,
      );
    // A gradient function may hand through an argument or one tensor twice; the clone is ours alone to free.
    return partial().clone();
  });
}

/** Walks the tape backwards from `y` and frees each node's saved tensors and gradients as soon as they are used. */
function backward(tape: Tape, y: tf.Tensor, dy: tf.Tensor, xs: readonly tf.Tensor[]): tf.Tensor[] {
  const gradients = new GradientMap();
  const outer = current;
  current = gradients;
  try {
    walk(tape, gradients, y, dy);
  } finally {
    current = outer;
  }
  return xs.map((x) => gradients.take(x.id) ?? tf.zerosLike(x));
}

function walk(tape: Tape, gradients: GradientMap, y: tf.Tensor, dy: tf.Tensor): void {
  const { nodes } = tape;
  if (tape.reaches(y)) gradients.add(y.id, dy.clone());
  for (let node = nodes.at(-1); node !== undefined; node = nodes.at(-1)) {
    const reachable = node;
    const dys = node.outputs.map((output) => gradients.take(output.id) ?? null);
    const inputs = Object.keys(node.inputs).filter((name) => tape.reaches(reachable.inputs[name]!));
    if (dys.some((gradient) => gradient !== null)) {
      const partials = tf.tidy(() => backwardNode(reachable, dys, inputs));
      inputs.forEach((name, index) => gradients.add(reachable.inputs[name]!.id, partials[index]!));
    }
    dys.forEach((gradient) => gradient?.dispose());
    disposeSaved(node);
    nodes.pop();
  }
}

/**
 * Runs `f` and differentiates its result with respect to `xs`. May be called anywhere, also inside a recorded function
 * or the backward pass of an op; nothing of it is recorded outside.
 *
 * @param f returns the float32 tensor to differentiate, and anything else that is wanted from the pass
 * @param dy gradient of the result, of its shape; default: ones
 * @returns what `f` returned and one gradient per x, zeros where the result does not depend on it; the caller owns them
 * @throws LlmxError `LLMX_GRADIENT_MISSING` where a path to an x leads through an op without gradient
 */
export function differentiate<T extends { readonly result: tf.Tensor }>(
  f: () => T,
  xs: readonly tf.Tensor[],
  dy?: tf.Tensor,
): { value: T; grads: tf.Tensor[] } {
  const { result: value, tape } = record(f, xs);
  try {
    const grads = unrecorded(() => {
      const seed = dy ?? tf.onesLike(value.result);
      const result = backward(tape, value.result, seed, xs);
      if (dy === undefined) seed.dispose();
      return result;
    });
    return { value, grads };
  } finally {
    tape.nodes.forEach(disposeSaved);
  }
}

/** Like `differentiate`, for parameters: gradients come under the parameters' paths. */
export function differentiateParams<T extends { readonly result: tf.Tensor }>(
  f: () => T,
  params: Params,
): { value: T; grads: Params } {
  const paths = Object.keys(params);
  const { value, grads } = differentiate(f, Object.values(params));
  return { value, grads: Object.fromEntries(paths.map((path, index) => [path, grads[index]!])) };
}

/**
 * A scalar whose gradients with respect to `inputs` are computed at once, in the forward pass: what `f` allocates is
 * freed before the next stage begins. For losses with several heads, whose logits then never exist together.
 */
export function staged(f: () => tf.Tensor, inputs: readonly tf.Tensor[]): tf.Tensor {
  if (!isRecording()) return f();
  return tf.customGrad((...args) => {
    const save = args.at(-1) as unknown as tf.GradSaveFunc;
    const { value, grads } = differentiate(() => ({ result: f() }), inputs);
    save(grads);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => saved.map((gradient) => tf.mul(gradient, dy));
    return { value: value.result, gradFunc };
  })(...inputs);
}

/**
 * `f(...inputs)`, keeping no activations: the backward pass runs `f` again (activation checkpointing). `f` must depend
 * on nothing differentiable but its arguments, and give the same values when run again.
 */
export function recomputed(f: (...inputs: tf.Tensor[]) => tf.Tensor, inputs: readonly tf.Tensor[]): tf.Tensor {
  if (!isRecording()) return f(...inputs);
  return tf.customGrad((...args) => {
    const save = args.at(-1) as unknown as tf.GradSaveFunc;
    save([...inputs]);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) =>
      differentiate(() => ({ result: f(...saved) }), saved, dy).grads;
    return { value: f(...inputs), gradFunc };
  })(...inputs);
}
