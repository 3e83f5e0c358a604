import { customOp, isRecording, type Params, runKernel, tf } from '@llmx/core';

import type { MlstmInputs, MlstmState } from './mlstm-chunk.ts';
import { type MlstmAttributes, mlstmBackward, mlstmForward } from './mlstm-chunkwise.ts';

export interface MlstmOptions {
  /**
   * Positions per chunk. Cost within a chunk is quadratic, between chunks linear; 1 is the recurrence, the whole window
   * the parallel form. It need not divide the window.
   */
  readonly chunk: number;
  /** Documents, int32 [batch, time]: the state is reset where they change. */
  readonly segments?: tf.Tensor | undefined;
  /** The state before the first position; absent: zero. */
  readonly state?: MlstmState | undefined;
}

/** Keeps the denominator from 0, relative to exp(m). */
const EPSILON = 1e-6;

const forward = (named: Params, attributes: MlstmAttributes): tf.Tensor[] =>
  runKernel('XlstmMlstmChunkwise', named, { ...attributes }) ?? tf.tidy(() => mlstmForward(named, attributes));

const backward = (named: Params, attributes: MlstmAttributes): tf.Tensor[] =>
  runKernel('XlstmMlstmChunkwiseGrad', named, { ...attributes }) ?? mlstmBackward(named, attributes);

const optional = (name: string, tensor: tf.Tensor | undefined): Params =>
  tensor === undefined ? {} : { [name]: tensor };

/** Saved tensors under the names that the gradient kernel knows them by. */
const numbered = (saved: readonly tf.Tensor[]): Params =>
  Object.fromEntries(saved.map((tensor, index) => [`saved${index}`, tensor]));

/**
 * The matrix memory of the mLSTM (Beck et al. 2024, arXiv 2405.04517, equations 19 to 27), stabilised: C gathers v k^T
 * under exponential input and sigmoid forget gates, and is read with q. Memory for the gradient is one state per chunk.
 *
 * @param inputs by position: query and key float32 [batch, time, heads, keySize], value [batch, time, heads, valueSize],
 *   gates before their nonlinearities [batch, time, heads]
 * @returns float32 [batch, time, heads, valueSize]
 */
export function mlstm(inputs: MlstmInputs, { chunk, segments, state }: MlstmOptions): tf.Tensor {
  if (!isRecording()) return tf.tidy(() => mlstmWithState(inputs, { chunk, segments, state }).h);
  const attributes = { chunk, epsilon: EPSILON, training: true };
  const given: Params = { ...inputs, ...state };
  const names = Object.keys(given);
  return customOp(
    Object.values(given),
    (save) => {
      const [h, , , , ...saved] = forward({ ...given, ...optional('segments', segments) }, attributes);
      save([...Object.values(given), h!, ...saved]);
      return h!;
    },
    (dy, [...saved]) => {
      const again = Object.fromEntries(names.map((name, index) => [name, saved[index]!]));
      const [h, ...rest] = saved.slice(names.length);
      const named = { dy, ...again, h: h!, ...optional('segments', segments), ...numbered(rest) };
      const gradients = backward(named, attributes);
      return state === undefined ? gradients : [...gradients, maximumGradient(again, gradients)];
    },
  );
}

/** h depends on C exp(m) and n exp(m), so the gradient of m is the sum of C dC and n dn. */
function maximumGradient({ memory, normalizer }: Params, gradients: readonly tf.Tensor[]): tf.Tensor {
  const [dMemory, dNormalizer] = gradients.slice(-2) as [tf.Tensor, tf.Tensor];
  return tf.add(tf.sum(tf.mul(memory!, dMemory), [2, 3]), tf.sum(tf.mul(normalizer!, dNormalizer), [2]));
}

/** Like `mlstm`, with the state after the last position; not recorded for differentiation. */
export function mlstmWithState(
  inputs: MlstmInputs,
  { chunk, segments, state }: MlstmOptions,
): { h: tf.Tensor; state: MlstmState } {
  const named = { ...inputs, ...optional('segments', segments), ...state };
  const attributes = { chunk, epsilon: EPSILON, training: false };
  const [h, memory, normalizer, maximum, ...saved] = forward(named, attributes) as [
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
  ];
  tf.dispose(saved);
  return { h, state: { memory, normalizer, maximum } };
}
