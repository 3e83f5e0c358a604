import { listSteps } from '../checkpoint/layout.ts';
import { CheckpointStore } from '../checkpoint/store.ts';
import { verifyDataset } from '../data/index.ts';
import { LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import { resolveConfig, type Resolved } from '../plugin/resolve.ts';
import type { Params } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { FRESH_GUARD } from '../train/guard.ts';
import { LeakGuard } from '../train/leak-guard.ts';
import { TrainLoop } from '../train/loop.ts';
import { tensorsOf } from '../train/step.ts';
import { createRun, openRun, runPath, type RunDirectory } from './directory.ts';
import { type Environment, resolveOptions } from './environment.ts';
import { type InitialWeights, openInitialWeights } from './initial-weights.ts';
import { isRun, type Manifest } from './manifest.ts';
import { MetricsLog } from './metrics-log.ts';
import { Recorder } from './recorder.ts';
import type { TrainEvent } from './train-event.ts';
import { checkDataset, checkInitialWeights, checkSettings, describeRun } from './run-facts.ts';
import { freshState, restorePosition } from './saved-state.ts';
import { openSession, type Session } from './session.ts';
import { withinTime } from './time-limit.ts';
import { Watchdog } from './watchdog.ts';

/** The result of a finished run; `llmx train --json` prints it. */
export interface TrainResult {
  readonly runDir: string;
  readonly steps: number;
  /** Tokens consumed. */
  readonly tokens: number;
  /** Loss of the last step's batch, as the objective defines it; nats per token for next-token. */
  readonly trainLoss: number | null;
  /** Next-token loss after the last step, nats per token; null where evaluation is off. */
  readonly valLoss: number | null;
  /** Median over steps after the second; null where there were none. */
  readonly tokensPerSecond: number | null;
  /** Highest resident memory of the process. */
  readonly peakMemoryMiB: number;
  readonly backend: string;
}

export interface TrainOptions {
  readonly file?: string | undefined;
  readonly sets?: readonly string[];
  /** The run's directory is runs/<name>. */
  readonly name: string;
  /** Continues the run if there is one. */
  readonly resume?: boolean;
  /** Continues it even if settings, data, plugins or the backend are others. */
  readonly allowChanges?: boolean;
  /** Reads the whole dataset first and compares it with its hashes. */
  readonly verifyData?: boolean;
  readonly onEvent?: (event: TrainEvent) => void;
}

/**
 * Trains a run from its configuration, or continues it.
 *
 * @throws LlmxError every error of configuration, data, backend and storage, before the first step; `LLMX_RUN_EXISTS`,
 *   `LLMX_RUN_LOCKED`, `LLMX_RESUME_MISMATCH`, `LLMX_CHECKPOINT_DAMAGED`; `LLMX_INTERRUPTED` when a signal or train.maxTime stopped it
 *   and its state is saved; `LLMX_DIVERGED` when its guard did; and what hooks throw
 */
export async function train(options: TrainOptions, environment: Environment): Promise<TrainResult> {
  const { host } = environment;
  const directory = runPath(options.name, host.cwd);
  const exists = isRun(directory);
  if (exists && options.resume !== true)
    throw new LlmxError('LLMX_RUN_EXISTS', `The run "${directory}" exists already.`, {
      hint: 'Continue it with --resume, or choose another --name.',
    });
  const resolved = await resolveConfig({
    ...resolveOptions(environment),
    file: options.file,
    sets: options.sets ?? [],
  });
  if (options.verifyData === true) await verifyData(resolved, host);
  return withinTime(resolved.config.train.maxTime, environment, (limited) =>
    exists ? resumeRun(directory, resolved, options, limited) : startRun(directory, resolved, options, limited),
  );
}

async function verifyData({ config: { data } }: Resolved, host: Host): Promise<void> {
  if (data.source.name !== 'llmx-tokens')
    throw new LlmxError('LLMX_USAGE', `Data of the source "${data.source.name}" have no hashes to verify.`, {
      hint: 'Leave --verify-data out.',
    });
  await verifyDataset(data.train, host.signal);
}

async function startRun(
  directory: string,
  resolved: Resolved,
  options: TrainOptions,
  environment: Environment,
): Promise<TrainResult> {
  const session = await openSession(resolved, environment);
  try {
    const { host } = environment;
    const weights = openInitialWeights(session, host.cwd);
    const run = createRun(directory, describeRun(directory, session, host.process, weights), host.process);
    try {
      return await trainIn(run, session, options, environment, weights);
    } catch (error) {
      // A mistake of the user's leaves nothing behind; once there is a step to keep, that is worth keeping.
      if (LlmxError.is(error) && error.kind === 'user' && !hasSteps(run)) run.discard();
      throw error;
    } finally {
      run.close();
    }
  } finally {
    session.close();
  }
}

const hasSteps = ({ checkpoints }: RunDirectory): boolean => listSteps(checkpoints).some((step) => step > 0);

async function resumeRun(
  directory: string,
  resolved: Resolved,
  options: TrainOptions,
  environment: Environment,
): Promise<TrainResult> {
  const run = openRun(directory, environment.host.process);
  try {
    return await continueRun(run, resolved, options, environment);
  } finally {
    run.close();
  }
}

async function continueRun(
  run: RunDirectory,
  resolved: Resolved,
  options: TrainOptions,
  environment: Environment,
): Promise<TrainResult> {
  const { manifest } = run;
  const strict = options.allowChanges !== true;
  if (strict) checkSettings(manifest, resolved);
  // The backend that `auto` took, so that the run goes on with the same arithmetic.
  const backend = strict && resolved.config.backend.name === 'auto' ? manifest.backend.name : undefined;
  const session = await openSession(resolved, environment, backend);
  try {
    if (strict) checkDataset(manifest, session.dataset);
    const finished = finishedResult(manifest, session.plan.totalSteps);
    if (finished !== undefined) return finished;
    const started = listSteps(run.checkpoints).length > 0;
    const weights = started ? undefined : openInitialWeights(session, environment.host.cwd);
    if (strict) checkInitialWeights(manifest, weights);
    return await trainIn(run, session, options, environment, weights);
  } finally {
    session.close();
  }
}

/** The stored result, if the run has done all its steps. */
function finishedResult({ result }: Manifest, totalSteps: number): TrainResult | undefined {
  const stored = result as unknown as TrainResult | undefined;
  return stored?.steps === totalSteps ? stored : undefined;
}

/** Trains in a directory that this process owns, from its newest checkpoint or from the start. */
async function trainIn(
  run: RunDirectory,
  session: Session,
  options: TrainOptions,
  { host }: Environment,
  weights: InitialWeights | undefined,
): Promise<TrainResult> {
  const { recipe, plan, resolved } = session;
  const { keepLast } = resolved.config.train;
  const retention = { keepLast, keepEvery: plan.keepEvery };
  const store = CheckpointStore.open(run.checkpoints, { pid: host.process.pid, retention });
  try {
    const result = await recipe.hooks.bracket('run', [], () =>
      trainSteps(run, session, { store, weights, host }, options),
    );
    run.update({ ...run.manifest, config: { ...resolved.config }, result: { ...result } });
    return result;
  } catch (error) {
    throw await recipe.hooks.failed(error);
  } finally {
    await store.close();
  }
}

async function trainSteps(
  run: RunDirectory,
  session: Session,
  { store, weights, host }: { store: CheckpointStore; weights: InitialWeights | undefined; host: Host },
  { onEvent = () => undefined }: TrainOptions,
): Promise<TrainResult> {
  const { recipe, plan, resolved, batches, backend } = session;
  const saved = store.steps().length > 0 ? restorePosition(session, store.load('latest')) : undefined;
  const start = saved?.position ?? {
    state: freshState(session, weights),
    step: 0,
    evaluated: true,
    guard: FRESH_GUARD,
  };
  if (start.step > plan.totalSteps) throw tooShort(start.step, plan.totalSteps);
  if (run.manifest.result !== undefined) run.update(withoutResult(run.manifest));
  const log = MetricsLog.open(run.metrics, start);
  const { watchdog: limit } = resolved.config.train;
  const watchdog = limit === undefined ? undefined : new Watchdog(limit);
  const leaks = host.debug === true ? new LeakGuard() : undefined;
  try {
    const context = { runDirectory: run.path, step: start.step };
    const sinks = resolved.config.sinks.map((sink) => resolved.registry.create('sink', sink, context));
    const recorder = new Recorder({ session, store, log, sinks, host, onEvent, watchdog, record: saved?.record });
    const loop = new TrainLoop(recipe, plan, batches, recorder, leaks);
    const { totalSteps, tokensPerStep } = plan;
    const { windowsPerEpoch } = batches;
    onEvent({
      kind: 'started',
      directory: run.path,
      step: start.step,
      totalSteps,
      tokensPerStep,
      parameters: sizeOf(start.state.params),
      frozen: sizeOf(start.state.frozen),
      ...(weights && { initialised: weights }),
      windowsPerEpoch,
      backend: backend.name,
    });
    if (saved !== undefined)
      await recipe.hooks.series('checkpointLoaded', { step: start.step, tokensSeen: start.step * tokensPerStep });
    // From here on the run stands on its own, whatever becomes of the weights it started from.
    if (weights !== undefined) await recorder.saveStart(start);
    tf.dispose(tensorsOf(await loop.run(start)));
    await recorder.finish();
    return resultOf(run, session, recorder, { milliseconds: loop.pace.median(), host });
  } finally {
    leaks?.stop();
    await watchdog?.stop();
    log.close();
  }
}

/** @param milliseconds of a step, where any were timed */
function resultOf(
  run: RunDirectory,
  { plan: { totalSteps, tokensPerStep }, backend }: Session,
  recorder: Recorder,
  { milliseconds, host }: { milliseconds: number | undefined; host: Host },
): TrainResult {
  return {
    runDir: run.path,
    steps: totalSteps,
    tokens: totalSteps * tokensPerStep,
    trainLoss: recorder.trainLoss,
    valLoss: recorder.valLossAt(totalSteps),
    tokensPerSecond: milliseconds === undefined ? null : (tokensPerStep / milliseconds) * 1000,
    peakMemoryMiB: host.memory().peakMiB,
    backend: backend.name,
  };
}

const sizeOf = (params: Params): number => Object.values(params).reduce((sum, { size }) => sum + size, 0);

function withoutResult({ result: _, ...rest }: Manifest): Manifest {
  return rest;
}

const tooShort = (done: number, totalSteps: number): LlmxError =>
  new LlmxError(
    'LLMX_RESUME_MISMATCH',
    `The run has done ${done} steps already, more than the ${totalSteps} of train.steps and train.tokens.`,
    {
      hint: `Set train.steps to ${done} or more.`,
    },
  );
