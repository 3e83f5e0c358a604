/** What a kernel has to do at least, from shapes: memory to move and operations to carry out. */
import type { tf } from '../tensor/index.ts';
import type { KernelCall } from './time-kernels.ts';

type Call = Pick<KernelCall, 'kernel' | 'inputs' | 'outputs' | 'attributes'>;

const BYTES: Readonly<Record<string, number>> = { float32: 4, int32: 4, bool: 1, complex64: 8 };

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** Bytes of tensors, those that share their data once. */
function bytesOf(tensors: readonly tf.TensorInfo[]): number {
  const distinct = new Map(tensors.map((info) => [info.dataId, info]));
  return [...distinct.values()].reduce((sum, { shape, dtype }) => sum + size(shape) * (BYTES[dtype] ?? 0), 0);
}

/** These read from their first input no more than they give out. */
const SELECTING = new Set(['GatherV2', 'LlmxEmbedding', 'Slice', 'StridedSlice']);

/** Whether a kernel of TensorFlow.js only gives its input another shape: those never write in place, llmx's may. */
const handsThrough = (kernel: string, given: readonly tf.TensorInfo[], outputs: readonly tf.TensorInfo[]): boolean =>
  !kernel.startsWith('Llmx') && outputs.every(({ dataId }) => given.some((input) => input.dataId === dataId));

/**
 * Bytes that a kernel has to read and write: those of its inputs and outputs, nothing where it only gives data it got a
 * new shape. Kernels that pick rows or a part read only those.
 */
export function bytesMoved({ kernel, inputs, outputs }: Call): number {
  const given = Object.values(inputs);
  if (handsThrough(kernel, given, outputs)) return 0;
  const written = bytesOf(outputs);
  return written + (SELECTING.has(kernel) ? written + bytesOf(given.slice(1)) : bytesOf(given));
}

const lengthOf = ({ inputs }: Call, name: string, axis: number): number => inputs[name]?.shape.at(axis) ?? 0;

/** A product counts a multiplication and an addition per element of the result and of the sum that makes it. */
const summed = ({ outputs: [output] }: Call, terms: number): number => 2 * size(output?.shape ?? [0]) * terms;

const matrixProduct = (call: Call): number =>
  summed(call, lengthOf(call, 'a', call.attributes['transposeA'] === true ? -2 : -1));

const linear = (call: Call): number => summed(call, lengthOf(call, 'x', -1));

/** Pairs of a query and a key it sees, per head. Queries are the last positions; documents are not looked at. */
function visiblePairs(queryTime: number, keyTime: number, window = Infinity): number {
  let pairs = 0;
  for (let query = 0; query < queryTime; query++) pairs += Math.min(window, keyTime - queryTime + query + 1);
  return pairs;
}

/** `products` multiply-adds per visible pair and element of a head; query and key are [batch, time, heads, headSize]. */
function attention(call: Call, products: number): number {
  const elements = size([0, 2, 3].map((axis) => lengthOf(call, 'query', axis)));
  const window = call.attributes['window'] as number | undefined;
  return 2 * products * elements * visiblePairs(lengthOf(call, 'query', 1), lengthOf(call, 'key', 1), window);
}

/** `products` products the size of the logits. */
const head = (call: Call, products: number): number =>
  2 * products * lengthOf(call, 'hidden', 0) * size(call.inputs['weight']?.shape ?? [0]);

/** The gradients of hidden states and weight, and once more those logits that were not kept. */
function headGradient(call: Call): number {
  const vocab = lengthOf(call, 'weight', call.attributes['transposed'] === true ? 0 : 1);
  const logits = lengthOf(call, 'hidden', 0) * vocab;
  const kept = Math.min(logits, size(call.inputs['logits']?.shape ?? [0]));
  return head(call, 2) + 2 * lengthOf(call, 'hidden', -1) * (logits - kept);
}

const OPERATIONS: Readonly<Record<string, (call: Call) => number>> = {
  BatchMatMul: matrixProduct,
  _FusedMatMul: matrixProduct,
  LlmxMatmul: matrixProduct,
  LlmxFusedMatmul: matrixProduct,
  LlmxLinear: linear,
  // Scores, and the values they weigh.
  LlmxAttention: (call) => attention(call, 2),
  // Scores once more, and the derivatives of weights, values, queries and keys.
  LlmxAttentionGrad: (call) => attention(call, 5),
  LlmxLinearCrossEntropy: (call) => head(call, 1),
  LlmxLinearCrossEntropyGrad: headGradient,
};

/**
 * Floating-point operations of a kernel's matrix products, a multiply-add counting two; undefined for kernels that have
 * none, which memory bounds. Attention is counted without document boundaries, the loss with all its rows.
 */
export const operations = (call: Call): number | undefined => OPERATIONS[call.kernel]?.(call);
