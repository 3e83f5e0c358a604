import { at, differentiate, type Params, tf } from '@llmx/core';

import { documentIndex } from './documents.ts';
import { chunkMask, mlstmChunk, type MlstmInputs, type MlstmState } from './mlstm-chunk.ts';
import { mlstmStep } from './mlstm-step.ts';

/** Attributes of the kernels, see kernel-contract.md. */
export interface MlstmAttributes {
  /** Positions per chunk. */
  readonly chunk: number;
  /** Added to the denominator. */
  readonly epsilon: number;
  /** Whether a gradient may follow. */
  readonly training: boolean;
}

const INPUTS = ['query', 'key', 'value', 'inputGate', 'forgetGate'] as const;

/** [batch, time, heads, ...] to [batch, heads, time, ...], and back. */
const swapped = (x: tf.Tensor): tf.Tensor => tf.transpose(x, x.rank === 4 ? [0, 2, 1, 3] : [0, 2, 1]);

const perHead = (named: Params): tf.Tensor[] => INPUTS.map((name) => swapped(at(named, name)));

const asInputs = (tensors: readonly tf.Tensor[]): MlstmInputs => {
  const [query, key, value, inputGate, forgetGate] = tensors as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  return { query, key, value, inputGate, forgetGate };
};

/** The state in a record of a kernel's inputs, absent where there is none. */
function givenState(named: Params): MlstmState | undefined {
  const { memory, normalizer, maximum } = named;
  return memory && normalizer && maximum && { memory, normalizer, maximum };
}

const flat = ({ memory, normalizer, maximum }: MlstmState): tf.Tensor[] => [memory, normalizer, maximum];

/** Positions [start, start + length) of axis 2. */
const part = (x: tf.Tensor, start: number, length: number): tf.Tensor =>
  tf.slice(
    x,
    x.shape.map((_, axis) => (axis === 2 ? start : 0)),
    x.shape.map((_, axis) => (axis === 2 ? length : -1)),
  );

/** Starts and lengths of the chunks of a window. */
function chunksOf(time: number, chunk: number): { start: number; length: number }[] {
  return Array.from({ length: Math.ceil(time / chunk) }, (_, index) => {
    const start = index * chunk;
    return { start, length: Math.min(chunk, time - start) };
  });
}

const documentsOf = ({ segments }: Params): tf.Tensor | undefined => segments && documentIndex(segments);

/**
 * The kernel `XlstmMlstmChunkwise` in ordinary ops. Of all states it keeps those between chunks, as its last results.
 */
export function mlstmForward(named: Params, { chunk, epsilon, training }: MlstmAttributes): tf.Tensor[] {
  const inputs = perHead(named);
  const time = inputs[0]!.shape[2]!;
  const initial = givenState(named);
  if (time === 1 && initial && !training) {
    const { h, state } = mlstmStep(asInputs(inputs), initial, epsilon);
    return [swapped(h), ...flat(state)];
  }
  const documents = documentsOf(named);
  const outputs: tf.Tensor[] = [];
  const boundaries: MlstmState[] = [];
  let state = initial;
  for (const { start, length } of chunksOf(time, chunk)) {
    if (state !== undefined && start > 0 && training) boundaries.push(state);
    const parts = asInputs(inputs.map((input) => part(input, start, length)));
    const result = mlstmChunk(parts, state, chunkMask(start, length, documents), epsilon);
    outputs.push(result.h);
    state = result.state;
  }
  return [swapped(tf.concat(outputs, 2)), ...flat(state!), ...boundaries.flatMap(flat)];
}

/** Gradients of one chunk's inputs, and of C and n before it where there are any. */
interface ChunkGradients {
  readonly inputs: readonly tf.Tensor[];
  readonly memory?: tf.Tensor | undefined;
  readonly normalizer?: tf.Tensor | undefined;
}

const inner = (a: tf.Tensor, b: tf.Tensor): tf.Tensor => tf.sum(tf.mul(a, b));

/** Runs a chunk again and differentiates it; `after` has the gradients of the state that it leaves. */
function chunkGradients(
  dy: tf.Tensor,
  inputs: readonly tf.Tensor[],
  state: MlstmState | undefined,
  after: ChunkGradients | undefined,
  run: (inputs: MlstmInputs, state: MlstmState | undefined) => { h: tf.Tensor; state: MlstmState },
): ChunkGradients {
  const before = state ? [state.memory, state.normalizer] : [];
  const { grads } = differentiate(() => {
    const { h, state: next } = run(asInputs(inputs), state);
    const outcome = inner(h, dy);
    const { memory, normalizer } = after ?? {};
    if (memory === undefined || normalizer === undefined) return { result: outcome };
    return { result: tf.addN([outcome, inner(next.memory, memory), inner(next.normalizer, normalizer)]) };
  }, [...inputs, ...before]);
  return { inputs: grads.slice(0, INPUTS.length), memory: grads[INPUTS.length], normalizer: grads[INPUTS.length + 1] };
}

/** The kernel `XlstmMlstmChunkwiseGrad` in ordinary ops: chunk by chunk from the last, each run again from its state. */
export function mlstmBackward(named: Params, { chunk, epsilon }: MlstmAttributes): tf.Tensor[] {
  const inputs = perHead(named);
  const dy = swapped(at(named, 'dy'));
  const documents = documentsOf(named);
  const chunks = chunksOf(dy.shape[2]!, chunk);
  const stateBefore = (index: number): MlstmState | undefined => {
    if (index === 0) return givenState(named);
    const [memory, normalizer, maximum] = [0, 1, 2].map((place) => at(named, `saved${3 * (index - 1) + place}`));
    return { memory: memory!, normalizer: normalizer!, maximum: maximum! };
  };
  const gradients: ChunkGradients[] = [];
  let after: ChunkGradients | undefined;
  for (const [index, { start, length }] of [...chunks.entries()].toReversed()) {
    const cut = (x: tf.Tensor): tf.Tensor => part(x, start, length);
    after = chunkGradients(cut(dy), inputs.map(cut), stateBefore(index), after, (parts, state) =>
      mlstmChunk(parts, state, chunkMask(start, length, documents), epsilon),
    );
    gradients.unshift(after);
  }
  const joined = INPUTS.map((_, which) =>
    swapped(
      tf.concat(
        gradients.map((each) => each.inputs[which]!),
        2,
      ),
    ),
  );
  const { memory, normalizer } = gradients[0]!;
  return memory && normalizer ? [...joined, memory, normalizer] : joined;
}
