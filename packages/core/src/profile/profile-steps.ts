import type { TrainingBatches } from '../data/index.ts';
import { LlmxError } from '../errors/index.ts';
import type { Objective, Optimizer } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { FRESH_GUARD } from '../train/guard.ts';
import { type LoopEvents, type LoopPlan, TrainLoop } from '../train/loop.ts';
import { type Recipe, tensorsOf, type TrainState } from '../train/step.ts';
import type { Recording } from './recording.ts';
import { timeKernels } from './time-kernels.ts';

/** A training run, cut down to the steps to look at. */
export interface ProfiledSteps {
  readonly recipe: Recipe;
  readonly plan: LoopPlan;
  readonly batches: TrainingBatches;
  /** Steps before the first that is recorded. */
  readonly warmup: number;
  /** Steps that are recorded. */
  readonly steps: number;
  readonly signal: AbortSignal;
  readonly now: () => number;
  /** After every step, those of the warm-up included. */
  readonly onStep: (step: number) => void;
}

/** The recipe, telling the recording which part of a step it has come to. */
function observed({ objective, optimizer, ...rest }: Recipe, recording: Recording): Recipe {
  const watchedObjective: Objective = {
    lookahead: objective.lookahead,
    targets: (batch) => objective.targets(batch),
    loss(args) {
      recording.enter('forward');
      const loss = objective.loss(args);
      recording.enter('backward');
      return loss;
    },
  };
  const watchedOptimizer: Optimizer = {
    init: (params) => optimizer.init(params),
    takesGradientFactor: optimizer.takesGradientFactor === true,
    update(args) {
      recording.enter('optimizer');
      const next = optimizer.update(args);
      recording.enter(undefined);
      return next;
    },
  };
  return { ...rest, objective: watchedObjective, optimizer: watchedOptimizer };
}

/** As many steps as are asked for; their learning rates are those of the run, the last one's where it is shorter. */
const cutPlan = ({ plan, warmup, steps }: ProfiledSteps): LoopPlan => ({
  ...plan,
  totalSteps: warmup + steps,
  // Reading the loss after every step waits for a device that works on its own.
  logEvery: 1,
  evalEvery: 0,
  checkpointEvery: 0,
  learningRate: (step) => plan.learningRate(Math.min(step, plan.totalSteps)),
});

const interrupted = (signal: AbortSignal): LlmxError =>
  new LlmxError('LLMX_INTERRUPTED', `Profiling was stopped by ${String(signal.reason)}.`);

/** The loop's surroundings: nothing is saved, logged or evaluated. */
function surroundings({ warmup, steps, signal, now, onStep }: ProfiledSteps, recording: Recording): LoopEvents {
  let done = 0;
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    stepped(step) {
      if (step > warmup) recording.endStep(`step ${step}`);
      done = step;
      onStep(step);
      if (signal.aborted) throw interrupted(signal);
    },
    // The last thing before the next step.
    async drain() {
      if (done >= warmup && done < warmup + steps) recording.beginStep();
    },
    skipped: () => undefined,
    exceeded: () => undefined,
    turnsTo: () => undefined,
    logged: nothing,
    evaluate: nothing,
    save: nothing,
    settle: nothing,
    // The loop would save its state first, but there is none worth saving.
    signal: new AbortController().signal,
    now,
    residentMiB: () => 0,
  };
}

/**
 * Trains the steps with every kernel of the active backend timed, and forgets what they learnt. Consumes the state.
 *
 * @throws LlmxError `LLMX_INTERRUPTED`, and whatever a step fails with; the kernels are then as before, too
 */
export async function profileSteps(profiled: ProfiledSteps, state: TrainState, recording: Recording): Promise<void> {
  const { recipe, batches, warmup, now } = profiled;
  const events = surroundings(profiled, recording);
  const loop = new TrainLoop(observed(recipe, recording), cutPlan(profiled), batches, events);
  const restore = timeKernels(tf.getBackend(), now, (call) => recording.called(call));
  try {
    if (warmup === 0) recording.beginStep();
    tf.dispose(tensorsOf(await loop.run({ state, step: 0, evaluated: true, guard: FRESH_GUARD })));
  } finally {
    restore();
  }
}
