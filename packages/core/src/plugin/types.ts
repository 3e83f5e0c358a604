/**
 * The plugin API: every contract between the framework and the components of a plugin; plugin-types.ts has the plugin and
 * its hooks, value-types.ts what goes in and comes out. A plugin brings components, which a configuration chooses, and
 * hooks, which take part in a run. Modules hold no state: parameters, optimizer state and decoding state are values.
 *
 * Tensor ownership: a function *borrows* its tensor arguments and *returns* new tensors that its caller disposes;
 * everything called inside a training step runs inside `tf.tidy`.
 */
import type * as tf from '@tensorflow/tfjs-core';
import type { z } from 'zod';

import type { Backend, Precision } from './backend-types.ts';
import type { Batch, HostBatch, Metrics, Params, Rng, StateTree, TokenIds } from './value-types.ts';

export type * from './value-types.ts';

// --------------------------------------------------------------------------------------------- components

/** Circumstances of a forward pass. */
export interface ForwardContext {
  /** Whether dropout and the like are active. */
  readonly training: boolean;
  /** int32 [batch, time]; absent: the whole window is one document. */
  readonly segments?: tf.Tensor;
  /** int32 [batch, time]; absent: positions count from 0. */
  readonly positions?: tf.Tensor;
  /**
   * `x` with each element zeroed with probability `rate` and the rest scaled by 1 / (1 - rate); `x` itself where
   * nothing is dropped. `name` keys the random numbers: use one name per place.
   */
  dropout(x: tf.Tensor, rate: number, name: string): tf.Tensor;
}

/** Circumstances of a decoding step. */
export interface StepContext {
  /** How many positions the state has seen: the position of the first new token. */
  readonly position: number;
  /** Whether `rewind` may follow: the new state then keeps what that needs. The next step drops it. Default: `false`. */
  readonly rewindable?: boolean;
}

/** A residual block of the `decoder` architecture: float32 [batch, time, dModel] to the same shape. */
export interface Block {
  /** Initial parameters under local names; `rng` is scoped to the block. */
  init(rng: Rng): Params;
  /** The parallel training form. */
  forward(params: Params, x: tf.Tensor, context: ForwardContext): tf.Tensor;
  /** Decoding state before the first token (KV cache, or constant size). */
  initialState(batch: number): StateTree;
  /**
   * One or more new positions, `x` float32 [batch, newTime, dModel]; the same outputs as `forward` gives there. States
   * are values: the old one stays valid, so a caller can roll back.
   */
  step(params: Params, x: tf.Tensor, state: StateTree, context: StepContext): { x: tf.Tensor; state: StateTree };
  /**
   * The state `count` positions earlier, for a state out of a rewindable step that took more than `count` positions.
   * Absent: whoever needs that state steps again from the one before, which costs a pass.
   */
  rewind?(params: Params, state: StateTree, count: number): StateTree;
  /** Whether decoding beyond the trained context length makes sense; default `false`. */
  readonly unbounded?: boolean;
}

export interface Model {
  /** Hidden size. */
  readonly dModel: number;
  /** Rows of the unembedding; at least the tokenizer's vocabulary. */
  readonly vocabSize: number;
  /** Positions `step` can take before a state is full; absent: any number. */
  readonly maxPositions?: number;
  init(rng: Rng): Params;
  /** Hidden states after the last norm, float32 [batch, time, dModel]. */
  hidden(params: Params, batch: Omit<Batch, 'labels'>, context: ForwardContext): tf.Tensor;
  /** Next-token logits, float32 [batch, time, vocabSize]. */
  logits(params: Params, hidden: tf.Tensor): tf.Tensor;
  /**
   * Cross-entropy in nats per position, float32 [batch, time], of labels int32 [batch, time]; 0 where a label is -1.
   * Default: computed from `logits`. A model whose head is one matrix gives a form that never holds all logits.
   */
  crossEntropy?(params: Params, hidden: tf.Tensor, labels: tf.Tensor): tf.Tensor;
  /**
   * `hidden`, and what the last block read, both float32 [batch, time, dModel], for heads beside that block. Present with
   * `lastNorm`.
   */
  fork?(
    params: Params,
    batch: Omit<Batch, 'labels'>,
    context: ForwardContext,
  ): { readonly trunk: tf.Tensor; readonly hidden: tf.Tensor };
  /** The norm after the last block, float32 [batch, time, dModel] to the same shape. */
  lastNorm?(params: Params, x: tf.Tensor): tf.Tensor;
  initialState(batch: number): StateTree;
  /** Decodes new tokens, int32 [batch, newTime]: what `fork` or `hidden` gives there, and the next state. */
  step(
    params: Params,
    tokens: tf.Tensor,
    state: StateTree,
    context?: Pick<StepContext, 'rewindable'>,
  ): { readonly hidden: tf.Tensor; readonly trunk?: tf.Tensor; readonly state: StateTree };
  /** The state `count` tokens earlier, as `Block.rewind` gives it. */
  rewind?(params: Params, state: StateTree, count: number): StateTree;
}

/** One term of a loss. The framework minimises the sum over terms of `weight * sum / total`. */
export interface LossTerm {
  /** Sum over the targets of this batch, float32 scalar. */
  readonly sum: tf.Tensor;
  readonly weight: number;
}

/** How far training is. With it, `stepsOf` gives a duration of the configuration in steps. */
export interface Progress {
  /** Number of the optimizer step, from 1. */
  readonly step: number;
  /** Length of the run, in steps. */
  readonly totalSteps: number;
  /** Tokens that one step consumes. */
  readonly tokensPerStep: number;
}

export interface Objective {
  /** How many future tokens of labels each position needs; 1 is next-token prediction. */
  readonly lookahead: number;
  /** Parameters that the objective owns, e.g. extra heads. They are stored under `objective.`. */
  init?(rng: Rng, model: Model): Params;
  /**
   * Number of targets per loss term, counted on the host before the step. Totals are taken over the whole accumulated
   * batch, so accumulation changes nothing.
   */
  targets(batch: HostBatch): Readonly<Record<string, number>>;
  /** Runs inside `tf.tidy`. Metrics are scalars, summed over micro-batches and read back when a step is logged. */
  loss(args: { model: Model; params: Params; batch: Batch; context: ForwardContext; progress: Progress }): {
    readonly terms: Readonly<Record<string, LossTerm>>;
    readonly metrics?: Readonly<Record<string, tf.Tensor>>;
  };
}

/** A scalar expression, built with the functions of `expr`; opaque to plugins. */
export interface Expression {
  readonly op: string;
  readonly args: readonly Expression[];
  /** Position for inputs and scalars, value for constants. */
  readonly value: number;
}

/** The per-element update of an optimizer, for wrappers that apply its direction in their own way. */
export interface ElementwiseRule {
  /** Names of the float32 buffers kept per parameter. */
  readonly slots: readonly string[];
  /** Numbers that change from step to step, e.g. bias corrections. */
  scalars(step: number): Readonly<Record<string, number>>;
  /** The descent direction (to be multiplied by -lr) and the next slots. Without weight decay. */
  direction(inputs: {
    gradient: Expression;
    parameter: Expression;
    slots: Readonly<Record<string, Expression>>;
    scalars: Readonly<Record<string, Expression>>;
  }): { readonly direction: Expression; readonly slots: Readonly<Record<string, Expression>> };
  /** Decoupled weight decay of a parameter: it shrinks by `lr * decay(path, shape)` a step. */
  decay(path: string, shape: readonly number[]): number;
  /** Called once with all parameter paths, to refuse options that name none of them. */
  checkPaths?(paths: readonly string[]): void;
}

/** A pair of pure functions. All state lives in `S`, so a checkpoint is complete by construction. */
export interface Optimizer<S extends StateTree = StateTree> {
  init(params: Params): S;
  /**
   * One step. `lr` is the learning rate after the schedule; `step` counts from 1; `loss` is the step's loss before the
   * update, float32 scalar, and reading it waits for the device. Returned tensors may be arguments handed through
   * unchanged. `params` and `state` are consumed: results may be written over them where no other tensor shares their
   * data, so nobody reads these tensors afterwards; whoever made them disposes them. `gradientFactor`, a float32 scalar,
   * is given to optimizers that take it: see `takesGradientFactor`.
   */
  update(args: {
    grads: Params;
    params: Params;
    state: S;
    lr: number;
    step: number;
    loss: tf.Tensor;
    gradientFactor?: tf.Tensor;
  }): {
    params: Params;
    state: S;
  };
  /**
   * Whether `update` multiplies all gradients by `gradientFactor`, where it is given, before anything else: the bits are those
   * of gradients that were multiplied beforehand (in an expression: `float32(mul(gradient, gradientFactor))`). Clipping then
   * costs no pass over memory. Default: `false`; such optimizers are given clipped gradients and no factor. What wraps another
   * optimizer and looks at `grads` itself leaves this out, or multiplies too.
   */
  readonly takesGradientFactor?: boolean;
  /**
   * Weights to evaluate, sample and export, where these differ from the iterate that is trained. The framework always
   * uses it.
   */
  evalParams?(params: Params, state: S): Params;
  /** Present where the update is a direction per element, so that wrappers can build on it. */
  readonly elementwise?: ElementwiseRule;
}

/** Multiplier of the learning rate. `step` counts from 1; `tokens` are those consumed before the step. */
export type Schedule = (at: { step: number; tokens: number; totalSteps: number }) => number;

export interface Tokenizer {
  readonly vocabSize: number;
  /** Id that ends every document. */
  readonly endOfText: number;
  /** sha256 of the tokenizer's files or definition, hex. */
  readonly hash: string;
  /** UTF-8 bytes that each id stands for, [vocabSize]; 0 for special tokens. */
  readonly byteLengths: Uint8Array | Uint16Array;
  /** Ids of one text, without end of text. */
  encode(utf8: Uint8Array): TokenIds;
  /** UTF-8 bytes of the ids, possibly cut within a character; special tokens give nothing. */
  decode(ids: ArrayLike<number>): Uint8Array;
}

export interface DatasetInfo {
  /** Hash over everything that decides which tokens are read. */
  readonly fingerprint: string;
  readonly tokenizer: { readonly name: string; readonly hash: string };
  readonly vocabSize: number;
  readonly endOfText: number;
  /** Counts per split; bytes are UTF-8 bytes of text. */
  readonly splits: Readonly<
    Record<string, { readonly documents: number; readonly tokens: number; readonly bytes: number }>
  >;
}

/** Random access to the tokens of one split. */
export interface TokenReader {
  readonly tokens: number;
  /**
   * `length` ids from position `start` on.
   *
   * @throws LlmxError `LLMX_DATASET_DAMAGED`
   */
  read(start: number, length: number): TokenIds;
  close(): void;
}

/** Reads one format of token datasets. */
export interface Source {
  /**
   * @throws LlmxError `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`
   */
  open(directory: string): { readonly info: DatasetInfo; split(name: string): TokenReader };
}

/** Receives every metrics record, e.g. to send it to a dashboard. metrics.jsonl is always written besides. */
export interface Sink {
  write(record: Metrics & { readonly step: number }): void | Promise<void>;
  close?(): void | Promise<void>;
}

/** A benchmark that a trained model is evaluated on; `llmx eval --task` runs it. */
export interface Task {
  /** Tensors it makes are its own to dispose. Where the signal is aborted it ends soon, in any way. */
  run(args: { model: Model; params: Params; tokenizer: Tokenizer; signal: AbortSignal }): Promise<Metrics>;
}

/** What a draft gets to propose from. Texts are single: batch is 1. */
export interface DraftInput {
  /** The model's, with those of the objective that trained it under `objective.`. */
  readonly params: Params;
  /** What `initialState` or the last `propose` returned. */
  readonly state: StateTree;
  /** Hidden states of the model at positions that the draft has not seen, float32 [1, newTime, dModel]. */
  readonly hidden: tf.Tensor;
  /** The trunk there, of a model that shows it. */
  readonly trunk?: tf.Tensor;
  /** The tokens at these positions and the one after them, [newTime + 1]: it is certain too, but new to the model. */
  readonly tokens: readonly number[];
  /** How many tokens to propose after that: at least 1, at most `length`, and never more than the time before. */
  readonly count: number;
  /**
   * Draws a token of each row of logits, float32 [1, rows, vocabSize], and proposes it after those before: `count` rows in
   * all, at once or row by row.
   */
  draw(logits: tf.Tensor): Promise<readonly number[]>;
}

/**
 * Proposes tokens for speculative decoding; the model itself verifies them. A draft whose name is that of an objective, with
 * the objective's options, reads what that objective trained: `llmx generate --speculative` uses it.
 */
export interface Draft {
  /** The most tokens that it can propose at a time. */
  readonly length: number;
  /** State before the first position. A draft sees only positions that stay, so it never rewinds. */
  initialState(): StateTree;
  /** Takes in new positions, proposes tokens, and returns the next state, which may hold tensors of the one before. */
  propose(input: DraftInput): Promise<StateTree>;
}

/** What each kind of component builds. */
export interface Kinds {
  architecture: Model;
  backend: Backend;
  block: Block;
  draft: Draft;
  objective: Objective;
  optimizer: Optimizer;
  schedule: Schedule;
  sink: Sink;
  source: Source;
  task: Task;
  tokenizer: Tokenizer;
}
export type Kind = keyof Kinds;

/** A component as a configuration names it: `name`, with its validated options beside it. */
export interface Selected {
  readonly name: string;
  readonly [option: string]: unknown;
}

/** Builds another component, e.g. the blocks of an architecture or the optimizer inside a wrapper. */
export type Create = <K extends Kind>(
  kind: K,
  selected: Selected,
  context: Omit<BuildContexts[K], 'create'>,
) => Kinds[K];

interface BaseContext {
  readonly create: Create;
}
interface BackendContext extends BaseContext {
  readonly precision: Precision;
  /** Folders from which optional packages are resolved: the experiment's, then the CLI's. */
  readonly resolveFrom: readonly string[];
}
interface ModelContext extends BaseContext {
  /** Rows of the embedding: `model.vocabSize`, or the tokenizer's vocabulary. */
  readonly vocabSize: number;
  /** Tokens per window in training. */
  readonly contextLength: number;
}
interface BlockContext extends ModelContext {
  readonly dModel: number;
  /** Position of this block among all blocks, from 0. */
  readonly index: number;
  /** Number of blocks in the model. */
  readonly depth: number;
}
interface DraftContext extends ModelContext {
  readonly model: Model;
}
interface ScheduleContext extends BaseContext {
  /** A duration of the configuration in steps. */
  steps(duration: Duration): number;
}
interface SinkContext extends BaseContext {
  readonly runDirectory: string;
  /** Steps done so far: above 0 when a run is resumed; later records of an earlier process are void. */
  readonly step: number;
}

/** What a component's `build` gets besides its options. */
export interface BuildContexts {
  architecture: ModelContext;
  backend: BackendContext;
  block: BlockContext;
  draft: DraftContext;
  objective: ModelContext;
  optimizer: BaseContext;
  schedule: ScheduleContext;
  sink: SinkContext;
  source: BaseContext;
  task: BaseContext;
  tokenizer: BaseContext;
}

/** A length of training: steps as an integer, tokens as `100Mtok`, or a share of the run as `5%`. */
export type Duration = number | string;

/** A choice that a configuration can make. Static: it is listed and checked without running code. */
export interface Component<K extends Kind = Kind, C extends z.ZodType = z.ZodType> {
  readonly kind: K;
  /** Name used in configurations: lower-case words joined by `-`, unique within its kind. */
  readonly name: string;
  /** One line for `llmx components`. */
  readonly summary: string;
  /** Address of the paper the idea comes from. */
  readonly paper?: string;
  /** Options: a strict object schema without transforms, since it also becomes a JSON Schema. */
  readonly config: C;
  build(config: z.output<C>, context: BuildContexts[K]): Kinds[K];
}

/** A component of any kind, as plugins list them. */
export type AnyComponent = { [K in Kind]: Component<K> }[Kind];
