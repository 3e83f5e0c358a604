import { resolve } from 'node:path';

import type { Host } from '../plugin/host.ts';
import { resolveConfig } from '../plugin/resolve.ts';
import type { MachinePeaks } from '../plugin/backend-types.ts';
import {
  checkTraceFile,
  type KernelRow,
  KernelTotals,
  measurePeaks,
  type Phase,
  profileSteps,
  Recording,
  writeTrace,
} from '../profile/index.ts';
import { type Environment, resolveOptions } from './environment.ts';
import { freshState } from './saved-state.ts';
import { openSession, type Session } from './session.ts';

export interface ProfileOptions {
  readonly file?: string | undefined;
  readonly sets?: readonly string[];
  /** Steps to measure. */
  readonly steps: number;
  /** Steps before these, which compile and allocate. */
  readonly warmup: number;
  /** File for a trace of every kernel call, relative to the current folder; absent: none is written. */
  readonly trace?: string | undefined;
  /** After every step, those of the warm-up included; before the first, `step` is 0. */
  readonly onProgress?: (progress: ProfileProgress) => void;
}

export interface ProfileProgress {
  readonly step: number;
  readonly totalSteps: number;
  readonly backend: string;
}

/** Where the time of a training step goes. Amounts are means over the measured steps, times in milliseconds. */
export interface ProfileResult {
  readonly backend: string;
  /** Steps measured, and before these. */
  readonly steps: number;
  readonly warmup: number;
  readonly tokensPerStep: number;
  readonly tokensPerSecond: number;
  readonly stepMilliseconds: number;
  /** Within kernels; the rest of the step is JavaScript: ops, the tape, memory. */
  readonly kernelMilliseconds: number;
  /** Clipping and gradient hooks count as backward; batches and reading back are in no phase. */
  readonly phases: Readonly<Record<Phase, number>>;
  readonly peaks: MachinePeaks;
  /** Most time first. */
  readonly kernels: readonly KernelRow[];
  /** The trace file. */
  readonly trace: string | null;
}

/**
 * Trains a few steps from a fresh state with every kernel timed. No run directory is made or touched, nothing is kept.
 *
 * @throws LlmxError every error of configuration, data and backend before the first step; `LLMX_OUTPUT_EXISTS`,
 *   `LLMX_IO_FAILED`, `LLMX_DISK_FULL` about the trace; `LLMX_INTERRUPTED`; and what hooks throw
 */
export async function profileTraining(options: ProfileOptions, environment: Environment): Promise<ProfileResult> {
  const { host } = environment;
  const trace = options.trace === undefined ? undefined : resolve(host.cwd, options.trace);
  const resolved = await resolveConfig({
    ...resolveOptions(environment),
    file: options.file,
    sets: options.sets ?? [],
  });
  const session = await openSession(resolved, environment);
  try {
    if (trace !== undefined) checkTraceFile(trace);
    const { result, recording } = await measure(session, options, host);
    if (trace !== undefined) writeTrace(trace, recording, `llmx profile, backend ${session.backend.name}`);
    return { ...result, trace: trace ?? null };
  } finally {
    session.close();
  }
}

async function measure(
  session: Session,
  { steps, warmup, trace, onProgress = () => undefined }: ProfileOptions,
  host: Host,
): Promise<{ result: Omit<ProfileResult, 'trace'>; recording: Recording }> {
  const { recipe, plan, batches, backend } = session;
  const now = (): number => host.now();
  const progress = { totalSteps: warmup + steps, backend: backend.name };
  onProgress({ ...progress, step: 0 });
  const peaks = backend.built.peaks?.() ?? measurePeaks(now);
  const totals = new KernelTotals(peaks, backend.built.nativeKernels?.());
  const recording = new Recording(now, totals, trace !== undefined);
  const onStep = (step: number): void => onProgress({ ...progress, step });
  const profiled = { recipe, plan, batches, warmup, steps, signal: host.signal, now, onStep };
  try {
    await recipe.hooks.bracket('run', [], () => profileSteps(profiled, freshState(session), recording));
  } catch (error) {
    throw await recipe.hooks.failed(error);
  }
  const mean = (spans: readonly { readonly milliseconds: number }[]): number =>
    spans.reduce((sum, { milliseconds }) => sum + milliseconds, 0) / steps;
  const phase = (name: Phase): number => mean(recording.phases.filter((span) => span.name === name));
  const stepMilliseconds = mean(recording.steps);
  const kernels = totals.rows({ steps, stepMilliseconds });
  const { tokensPerStep } = plan;
  return {
    recording,
    result: {
      backend: backend.name,
      steps,
      warmup,
      tokensPerStep,
      tokensPerSecond: (tokensPerStep / stepMilliseconds) * 1000,
      stepMilliseconds,
      kernelMilliseconds: kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0),
      phases: { forward: phase('forward'), backward: phase('backward'), optimizer: phase('optimizer') },
      peaks,
      kernels,
    },
  };
}
