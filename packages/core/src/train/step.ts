import type { HookDriver } from '../plugin/hook-driver.ts';
import type { StepInfo } from '../plugin/plugin-types.ts';
import type { HostBatch, Model, Objective, Optimizer, Params, Progress, StateTree } from '../plugin/types.ts';
import {
  accumulated,
  differentiateParams,
  mapParams,
  scaled,
  stateTensors,
  sumOfSquares,
  tf,
} from '../tensor/index.ts';
import { trainingContext, upload } from './forward-context.ts';
import type { StepNumbers } from './guard.ts';

/** What a run trains with: fixed from the first step to the last. */
export interface Recipe {
  readonly model: Model;
  readonly objective: Objective;
  readonly optimizer: Optimizer;
  readonly hooks: HookDriver;
  readonly seed: number;
  /** Length of the run, and of its steps. */
  readonly length: Omit<Progress, 'step'>;
  /** Largest global gradient norm; 0: no clipping. */
  readonly gradClip: number;
}

/** What a step changes. Owned by whoever holds it. */
export interface TrainState {
  /** The trained iterate, the objective's parameters under `objective.` included. */
  readonly params: Params;
  /** Parameters that are not trained: no step changes them, the optimizer does not know them. */
  readonly frozen: Params;
  readonly optimizer: StateTree;
}

/** Every parameter, trained or not. */
export const allParams = ({ params, frozen }: Pick<TrainState, 'params' | 'frozen'>): Params => ({
  ...frozen,
  ...params,
});

/** Every tensor of a state. */
export const tensorsOf = (state: TrainState): tf.Tensor[] => [
  ...Object.values(allParams(state)),
  ...stateTensors(state.optimizer),
];

export interface StepInput {
  readonly info: StepInfo;
  /** Learning rate after the schedule. */
  readonly lr: number;
  /** The accumulated batch. */
  readonly micros: readonly HostBatch[];
  /** Whether to take the step, given its loss and the gradients' norm before clipping; asking waits for the device. */
  accepts?(numbers: StepNumbers): boolean;
}

/** Scalar tensors of a step, read back together when somebody wants to know. */
export type StepScalars = Readonly<Record<string, tf.Tensor>>;

/** Targets per term over the whole accumulated batch. */
function countTargets(objective: Objective, micros: readonly HostBatch[]): Record<string, number> {
  const totals: Record<string, number> = {};
  for (const micro of micros)
    for (const [term, count] of Object.entries(objective.targets(micro))) totals[term] = (totals[term] ?? 0) + count;
  return totals;
}

/**
 * Loss and gradients of one micro-batch, as its share of the accumulated batch: sum over terms of weight * sum / total.
 * A term without targets counts nothing.
 */
function microGradients(
  { model, objective, seed, length }: Recipe,
  state: TrainState,
  micro: HostBatch,
  totals: Readonly<Record<string, number>>,
  place: { step: number; firstRow: number },
): { scalars: Record<string, tf.Tensor>; grads: Params } {
  const params = allParams(state);
  const { value, grads } = differentiateParams(() => {
    const batch = upload(micro);
    const { terms, metrics = {} } = objective.loss({
      model,
      params,
      batch,
      context: trainingContext({ seed, ...place }),
      progress: { ...length, step: place.step },
    });
    const shares = Object.entries(terms).map(([term, { sum, weight }]) => {
      const share = tf.div(sum, Math.max(1, totals[term] ?? 0));
      return { term, share, weighted: tf.mul(share, weight) };
    });
    const named = shares.length > 1 ? shares.map(({ term, share }) => [`loss/${term}`, share] as const) : [];
    return {
      result: tf.addN(shares.map(({ weighted }) => weighted)),
      scalars: { ...metrics, ...Object.fromEntries(named) },
    };
  }, state.params);
  return { scalars: { loss: value.result, ...value.scalars }, grads };
}

/** Adds the entries of `more` to those of `sums`, and disposes what went in. */
function accumulate<T extends Record<string, tf.Tensor>>(sums: T | undefined, more: T): T {
  if (sums === undefined) return more;
  const added = tf.tidy(() => mapParams(sums, (sum, key) => accumulated(sum, more[key]!)) as T);
  tf.dispose([sums, more]);
  return added;
}

/** Mean loss, and gradients of what is trained, over the accumulated batch. */
function accumulatedGradients(recipe: Recipe, state: TrainState, { info, micros }: StepInput) {
  const totals = countTargets(recipe.objective, micros);
  let [scalars, grads]: [Record<string, tf.Tensor>?, Params?] = [];
  let firstRow = 0;
  for (const micro of micros) {
    const part = tf.tidy(() => microGradients(recipe, state, micro, totals, { step: info.step, firstRow }));
    firstRow += micro.batch;
    scalars = accumulate(scalars, part.scalars);
    grads = accumulate(grads, part.grads);
  }
  return { scalars: scalars!, grads: grads! };
}

/** Square root of the sum of all squares, float32 scalar. */
export const globalNorm = (grads: Params): tf.Tensor =>
  tf.sqrt(tf.addN(Object.values(grads).map((gradient) => sumOfSquares(gradient))));

/**
 * Gradients scaled down to a global norm of at most `limit`: times min(1, limit / (norm + 1e-6)). By the optimizer, where it
 * takes the factor; else here, in place where nobody reads the given ones afterwards.
 */
function clip(
  { optimizer, gradClip: limit }: Recipe,
  grads: Params,
  norm: tf.Tensor,
  overwrite: boolean,
): Pick<Parameters<Optimizer['update']>[0], 'grads' | 'gradientFactor'> {
  if (limit === 0) return { grads };
  const factor = tf.minimum(1, tf.div(limit, tf.add(norm, 1e-6)));
  if (optimizer.takesGradientFactor === true) return { grads, gradientFactor: factor };
  return { grads: mapParams(grads, (gradient) => scaled(gradient, factor, overwrite)) };
}

const isAccepted = ({ accepts }: StepInput, loss: tf.Tensor, gradNorm: tf.Tensor): boolean =>
  accepts === undefined || accepts({ loss: loss.dataSync()[0]!, gradNorm: gradNorm.dataSync()[0]! });

/**
 * One optimizer step: gradients of the accumulated batch -> gradient hooks -> clipping -> update. Consumes `state`. A step
 * that is not accepted ends before the update, with the state as it was and a scalar `skipped` of 1.
 *
 * @returns the next state and the step's scalars, both owned by the caller
 */
export function trainStep(
  recipe: Recipe,
  state: TrainState,
  input: StepInput,
): { state: TrainState; scalars: StepScalars } {
  const { optimizer, hooks } = recipe;
  const { info, lr } = input;
  const result = tf.tidy(() => {
    const raw = accumulatedGradients(recipe, state, input);
    const grads = hooks.waterfallSync('gradients', raw.grads, info);
    const gradNorm = globalNorm(grads);
    if (!isAccepted(input, raw.scalars['loss']!, gradNorm))
      return { ...state, scalars: { ...raw.scalars, gradNorm, skipped: tf.scalar(1) } };
    const next = optimizer.update({
      ...clip(recipe, grads, gradNorm, !hooks.takesPart('inspect', info.step)),
      params: state.params,
      state: state.optimizer,
      lr,
      step: info.step,
      loss: raw.scalars['loss']!,
    });
    const params = allParams({ ...state, params: next.params });
    const inspected = hooks.collectSync('inspect', { ...info, params, grads });
    return { params: next.params, optimizer: next.state, scalars: { ...inspected, ...raw.scalars, gradNorm } };
  });
  const next: TrainState = { params: result.params, frozen: state.frozen, optimizer: result.optimizer };
  const kept = new Set(tensorsOf(next));
  for (const tensor of tensorsOf(state)) if (!kept.has(tensor)) tensor.dispose();
  return { state: next, scalars: result.scalars };
}
