import { nextTurn } from '../data/files.ts';
import type { TrainingBatches } from '../data/index.ts';
import { LlmxError } from '../errors/index.ts';
import type { StepInfo } from '../plugin/plugin-types.ts';
import type { Metrics } from '../plugin/types.ts';
import { stateTensors, tf } from '../tensor/index.ts';
import { type GuardOptions, type GuardState, judge, type StepNumbers, type Verdict } from './guard.ts';
import type { LeakGuard } from './leak-guard.ts';
import { Pace } from './pace.ts';
import { type Recipe, type StepInput, type StepScalars, trainStep, type TrainState } from './step.ts';

/** When things happen. Steps count from 1; 0 for a distance: never. */
export interface LoopPlan {
  readonly totalSteps: number;
  readonly tokensPerStep: number;
  readonly gradAccumulation: number;
  readonly logEvery: number;
  readonly evalEvery: number;
  readonly checkpointEvery: number;
  /** `false`: every step is taken, and nothing is read back to decide that. */
  readonly guard: GuardOptions | false;
  /** Learning rate of a step, after the schedule. */
  learningRate(step: number): number;
}

/** Where training stands between two steps. */
export interface LoopPosition {
  /** Owned by the loop until it returns or throws. */
  readonly state: TrainState;
  /** Steps done. */
  readonly step: number;
  /** Whether the evaluation that is due after that step, if any, is done. */
  readonly evaluated: boolean;
  readonly guard: GuardState;
}

/** What the loop needs of its surroundings. The first failure of any of these ends the loop. */
export interface LoopEvents {
  /** After every step. */
  stepped(step: number): void;
  /** A step was left out, e.g. since `its loss is NaN`. */
  skipped(step: number, reason: string): void;
  /** Numbers of a logged step. */
  logged(info: StepInfo, metrics: Metrics): Promise<void>;
  /** Evaluates; the state is borrowed. */
  evaluate(info: StepInfo, state: TrainState): Promise<void>;
  /** Saves a checkpoint; it may still be being written when the promise resolves. The state is borrowed. */
  save(info: StepInfo, position: LoopPosition): Promise<void>;
  /** Between steps: whatever finished in the background. */
  drain(): Promise<void>;
  /** Waits until what was saved is complete. */
  settle(): Promise<void>;
  readonly signal: AbortSignal;
  /** Asked after each step: why to save and stop, if there is a reason. */
  exceeded(state: TrainState): LlmxError | undefined;
  /** Training turns to this work on that step. */
  turnsTo(step: number, activity: 'forward and backward pass' | 'evaluation' | 'saving a checkpoint'): void;
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  residentMiB(): number;
}

const isDue = (step: number, every: number, totalSteps: number): boolean =>
  every > 0 && (step % every === 0 || step === totalSteps);

/** Reads scalar tensors back together and disposes them. */
async function read(scalars: StepScalars): Promise<Metrics> {
  const values = await Promise.all(Object.values(scalars).map((scalar) => scalar.data()));
  tf.dispose(scalars);
  return Object.fromEntries(Object.keys(scalars).map((name, index) => [name, values[index]![0]!]));
}

function interrupted(step: number, signal: AbortSignal): LlmxError {
  const place = step === 0 ? 'before its first step' : `after step ${step}; its state is saved`;
  return new LlmxError('LLMX_INTERRUPTED', `Training was stopped by ${String(signal.reason)} ${place}.`, {
    hint: 'Continue with --resume.',
  });
}

const diverged = (step: number, skips: number, reason: string): LlmxError =>
  new LlmxError(
    'LLMX_DIVERGED',
    `Step ${step} was left out, the last of ${skips} in a row, more than train.guard.maxSkips: ${reason}.`,
    {
      hint: 'The state before these steps is saved. See what they read with `llmx data inspect --run`, or lower optimizer.lr and continue with --resume --allow-changes.',
    },
  );

/** A position with what led to it. */
interface StepOutcome extends LoopPosition {
  /** Why the step was left out, if it was. */
  readonly skip?: string | undefined;
}

/** One step and what follows it, for every step up to the last. */
export class TrainLoop {
  readonly pace: Pace;
  /** Numbers of the latest step that was read back. */
  latest: Metrics = {};
  readonly #recipe: Recipe;
  readonly #plan: LoopPlan;
  readonly #batches: TrainingBatches;
  readonly #events: LoopEvents;
  readonly #leaks: LeakGuard | undefined;

  constructor(recipe: Recipe, plan: LoopPlan, batches: TrainingBatches, events: LoopEvents, leaks?: LeakGuard) {
    this.#leaks = leaks;
    this.#recipe = recipe;
    this.#plan = plan;
    this.#batches = batches;
    this.#events = events;
    this.pace = new Pace(() => events.now());
  }

  /**
   * Trains to the last step, or until the signal or the guard asks to stop: then the state is saved first. Consumes the
   * state.
   *
   * @returns the state after the last step, owned by the caller
   * @throws LlmxError `LLMX_INTERRUPTED`, `LLMX_DIVERGED`, and whatever a hook, the data or an event fails with
   */
  async run(start: LoopPosition): Promise<TrainState> {
    const { totalSteps } = this.#plan;
    let position = this.#resumed(start);
    await nextTurn(); // a signal may have come while data and model were prepared
    if (this.#events.signal.aborted) throw interrupted(start.step, this.#events.signal); // nothing is new since it was saved
    if (!start.evaluated) await this.#finishStep(position);
    while (position.step < totalSteps) {
      this.#leaks?.begin();
      const outcome = await this.#step(position, position.step + 1 - start.step);
      // What is made in the first steps may be kept for good, e.g. tables of positions.
      const { params, optimizer } = outcome.state;
      if (outcome.step - start.step > 2)
        this.#leaks?.end(outcome.step, [...Object.values(params), ...stateTensors(optimizer)]);
      await this.#finishStep(outcome);
      position = outcome;
      await nextTurn(); // lets signals, timers and the writer's messages in
      await this.#events.drain();
    }
    return position.state;
  }

  /** Whoever continues a run that the guard has stopped wants it to try again. */
  #resumed(start: LoopPosition): LoopPosition {
    return this.#isOver(start) ? { ...start, guard: { ...start.guard, skips: 0 } } : start;
  }

  /** Whether more steps in a row were left out than the guard allows. */
  #isOver({ guard }: LoopPosition): boolean {
    const options = this.#plan.guard;
    return options !== false && guard.skips > options.maxSkips;
  }

  #info(step: number): StepInfo {
    return { step, tokensSeen: step * this.#plan.tokensPerStep };
  }

  /** Batch -> gradients -> update; scalars are read back only where somebody wants to know. */
  async #step(position: LoopPosition, sinceStart: number): Promise<StepOutcome> {
    const { hooks } = this.#recipe;
    const step = position.step + 1;
    const info = this.#info(step);
    this.#events.turnsTo(step, 'forward and backward pass');
    const lr = this.#plan.learningRate(step);
    const micros = Array.from({ length: this.#plan.gradAccumulation }, (_, micro) =>
      hooks.waterfallSync('batch', this.#batches.micro(step, micro).batch, info),
    );
    const { next, skip, guard } = this.#guarded(position, { info, lr, micros });
    if (skip !== undefined) this.#events.skipped(step, skip);
    const logs = skip !== undefined || this.#logs(step);
    // The clock starts after the second step: the first ones compile and allocate.
    if (!logs && !hooks.takesPart('stepEnd', step) && sinceStart !== 2) tf.dispose(next.scalars);
    else await this.#report(info, { ...(await read(next.scalars)), lr }, { logs, isTimed: sinceStart >= 2 });
    this.#events.stepped(step);
    return { state: next.state, step, evaluated: false, guard, skip };
  }

  /** The update, unless the guard leaves it out. */
  #guarded(position: LoopPosition, input: StepInput) {
    const { guard } = this.#plan;
    let verdict: Verdict = { state: position.guard };
    const accepts = (options: GuardOptions) => (numbers: StepNumbers) => {
      verdict = judge(options, position.guard, numbers);
      return verdict.skip === undefined;
    };
    const guarded = guard === false ? input : { ...input, accepts: accepts(guard) };
    const next = trainStep(this.#recipe, position.state, guarded);
    return { next, skip: verdict.skip, guard: verdict.state };
  }

  #logs(step: number): boolean {
    const { logEvery, evalEvery, totalSteps } = this.#plan;
    return step === 1 || isDue(step, logEvery, totalSteps) || isDue(step, evalEvery, totalSteps);
  }

  async #report(
    info: StepInfo,
    scalars: Metrics,
    { logs, isTimed }: { logs: boolean; isTimed: boolean },
  ): Promise<void> {
    const { hooks } = this.#recipe;
    if (isTimed) this.pace.caughtUp(info.step);
    this.latest = hooks.waterfallSync('metrics', scalars, info);
    if (logs) {
      const milliseconds = this.pace.latest();
      const speed =
        milliseconds === undefined ? {} : { tokensPerSecond: (this.#plan.tokensPerStep / milliseconds) * 1000 };
      const memoryMiB = this.#events.residentMiB();
      await this.#events.logged(info, { ...this.latest, tokensSeen: info.tokensSeen, ...speed, memoryMiB });
    }
    await hooks.series('stepEnd', { ...info, metrics: this.latest });
  }

  /** Evaluation and checkpoint where they are due; stops here if a signal came, or the guard says so. */
  async #finishStep(outcome: StepOutcome): Promise<void> {
    const { skip, ...position } = outcome;
    const { step, state, guard } = position;
    const { evalEvery, checkpointEvery, totalSteps } = this.#plan;
    const info = this.#info(step);
    const { signal } = this.#events;
    const wants = {
      evaluation: isDue(step, evalEvery, totalSteps),
      checkpoint: isDue(step, checkpointEvery, totalSteps),
    };
    const problem = this.#isOver(position)
      ? diverged(step, guard.skips, skip ?? 'it was not accepted')
      : this.#events.exceeded(state);
    let evaluated = !wants.evaluation;
    if (wants.evaluation && !signal.aborted && problem === undefined) evaluated = await this.#evaluate(info, state);
    const stops = signal.aborted || problem !== undefined;
    if (wants.checkpoint || step === totalSteps || stops) {
      this.#events.turnsTo(step, 'saving a checkpoint');
      await this.#events.save(info, { ...position, evaluated });
    }
    if (stops) {
      await this.#events.settle();
      throw problem ?? interrupted(step, signal);
    }
    if (wants.evaluation || wants.checkpoint) this.pace.restart(step);
  }

  /** Whether the evaluation ran to its end, as opposed to having been stopped by the signal. */
  async #evaluate(info: StepInfo, state: TrainState): Promise<boolean> {
    this.#events.turnsTo(info.step, 'evaluation');
    try {
      await this.#recipe.hooks.bracket('evaluate', [info], () => this.#events.evaluate(info, state));
      return true;
    } catch (error) {
      if (this.#events.signal.aborted && LlmxError.is(error) && error.code === 'LLMX_INTERRUPTED') return false;
      throw error;
    }
  }
}
