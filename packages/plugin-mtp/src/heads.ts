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
  /** `forward` at new positions, the first of which is `position`; the state forgets the last `guessed` of them. */
  step(params: Params, x: tf.Tensor, state: StateTree, position: number, guessed?: number): Stepped;
}

/** Outputs at new positions, and the state after them. */
export interface Stepped {
  readonly x: tf.Tensor;
  readonly state: StateTree;
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
  step(params, x, state, position, guessed = 0) {
    const own = scoped(params, 'block');
    const certain = x.shape[1]! - guessed;
    if (guessed === 0) return block.step(own, x, state, { position });
    if (certain === 0) return { x: block.step(own, x, state, { position }).x, state };
    if (block.rewind !== undefined) {
      const all = block.step(own, x, state, { position, rewindable: true });
      return { x: all.x, state: block.rewind(own, all.state, guessed) };
    }
    const first = block.step(own, span(x, 0, certain), state, { position });
    const rest = block.step(own, span(x, certain, guessed), first.state, { position: position + certain });
    return { x: tf.concat([first.x, rest.x], 1), state: first.state };
  },
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
    step(params, x, state, position, guessed) {
      const result = head.step(params, x, state, position, guessed);
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
