import {
  at,
  type Batch,
  type Block,
  type BuildContexts,
  type ForwardContext,
  linear,
  type Model,
  type Params,
  prefixed,
  type Rng,
  rmsNorm,
  scoped,
  type Selected,
  type StateTree,
  tf,
} from '@llmx/core';

/** Part of a head with parameters of its own: float32 [batch, time, dModel] to the same shape. */
export interface Head {
  /** Whether a position reads itself alone, so that decoding need not give the head the others. */
  readonly isLocal: boolean;
  init(rng: Rng): Params;
  forward(params: Params, x: tf.Tensor, context: ForwardContext): tf.Tensor;
  /** Decoding state before the first position of one text. */
  initialState(): StateTree;
  /** `forward` at new positions, the first of which is `position`. */
  step(params: Params, x: tf.Tensor, state: StateTree, position: number): { x: tf.Tensor; state: StateTree };
}

/** Where an objective keeps the parameters of the head that predicts `ahead` + 1 tokens ahead. */
const headPath = (ahead: number): string => `heads.${ahead + 1}`;

/** Initial parameters of the heads beyond the next token's, each under its path. */
export function initHeads(heads: readonly Pick<Head, 'init'>[], rng: Rng): Params {
  const parts = heads.map((head, index) => {
    const path = headPath(index + 1);
    return prefixed(path, head.init(rng.scope(path)));
  });
  return Object.assign({}, ...parts) as Params;
}

/** Parameters of one head, under their local names. */
export const ownParams = (params: Params, ahead: number): Params => scoped(params, `objective.${headPath(ahead)}`);

/** `name` or `{ name, ...options }`, as a selection. */
export const selected = (given: string | Selected): Selected => (typeof given === 'string' ? { name: given } : given);

/** x + x W, which starts as x. */
export function linearHead(dModel: number): Head {
  const map = (params: Params, x: tf.Tensor) => linear(x, at(params, 'linear.weight'), undefined, { residual: x });
  return {
    isLocal: true,
    init: () => ({ 'linear.weight': tf.zeros([dModel, dModel]) }),
    forward: map,
    initialState: () => ({}),
    step: (params, x, state) => ({ x: map(params, x), state }),
  };
}

/** A block, its parameters below `block.`. */
const blockHead = (block: Block): Head => ({
  isLocal: false,
  init: (rng) => prefixed('block', block.init(rng.scope('block'))),
  forward: (params, x, context) => block.forward(scoped(params, 'block'), x, context),
  initialState: () => block.initialState(1),
  step: (params, x, state, position) => block.step(scoped(params, 'block'), x, state, { position }),
});

/** The blocks of heads 1 to `count` beyond the next token's, built for the hidden size of a model. */
export function blockHeads(
  block: Selected,
  count: number,
  { dModel }: Model,
  { create, vocabSize, contextLength }: BuildContexts['objective'],
): Head[] {
  return Array.from({ length: count }, (_, index) =>
    blockHead(create('block', block, { vocabSize, contextLength, dModel, index, depth: count })),
  );
}

/** The head, and a norm of its own behind it. */
export function withNorm(head: Head, dModel: number): Head {
  const norm = (params: Params, x: tf.Tensor) => rmsNorm(x, at(params, 'norm.weight'));
  return {
    isLocal: head.isLocal,
    init: (rng) => ({ ...head.init(rng), 'norm.weight': tf.ones([dModel]) }),
    forward: (params, x, context) => norm(params, head.forward(params, x, context)),
    initialState: () => head.initialState(),
    step(params, x, state, position) {
      const result = head.step(params, x, state, position);
      return { x: norm(params, result.x), state: result.state };
    },
  };
}

/** Circumstances of the head's pass: the batch's documents, and random numbers of its own. */
export function headContext(context: ForwardContext, { segments, positions }: Batch, ahead: number): ForwardContext {
  return {
    training: context.training,
    ...(segments && { segments }),
    ...(positions && { positions }),
    dropout: (x, rate, name) => context.dropout(x, rate, `objective.${headPath(ahead)}.${name}`),
  };
}

/** `f(argument)`, remembered for each argument that lives. */
export function remembered<K extends object, T>(f: (argument: K) => T): (argument: K) => T {
  const values = new WeakMap<K, T>();
  return (argument) => {
    const value = values.get(argument) ?? f(argument);
    values.set(argument, value);
    return value;
  };
}

/** Positions from `start` on, `length` of them, of float32 [1, time, dModel]. */
export const span = (x: tf.Tensor, start: number, length: number): tf.Tensor =>
  tf.slice(x, [0, start, 0], [-1, length, -1]);

/** The last position of float32 [1, time, dModel]. */
export const last = (x: tf.Tensor): tf.Tensor => span(x, x.shape[1]! - 1, 1);
