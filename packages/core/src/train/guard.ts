import { z } from 'zod';

/** When a step is left out, and when a run is stopped. */
export interface GuardOptions {
  /** Steps in a row that are left out; one more stops the run. */
  readonly maxSkips: number;
  /** Standard deviations above the mean of the window that a loss or gradient norm may have; 0: any number. */
  readonly spikeSigma: number;
  /** Length of the window, in steps that were taken. */
  readonly spikeWindow: number;
}

export const guardStateSchema = z.strictObject({
  /** Steps left out in a row, up to the latest. */
  skips: z.int().min(0),
  /** Loss and gradient norm of the latest steps that were taken, oldest first; empty where spikes are allowed. */
  losses: z.array(z.number()),
  gradNorms: z.array(z.number()),
});
/** What the guard remembers between steps. */
export type GuardState = Readonly<z.infer<typeof guardStateSchema>>;

export const FRESH_GUARD: GuardState = { skips: 0, losses: [], gradNorms: [] };

/** Numbers of a step that are known before its update. */
export interface StepNumbers {
  readonly loss: number;
  readonly gradNorm: number;
}

export interface Verdict {
  readonly state: GuardState;
  /** Why the step is left out, e.g. `its loss is NaN`; absent for a step to take. */
  readonly skip?: string;
}

/** What is wrong with a value, given those before it. */
function problem(
  what: string,
  value: number,
  window: readonly number[],
  { spikeSigma, spikeWindow }: GuardOptions,
): string | undefined {
  if (!Number.isFinite(value)) return `its ${what} is ${value}`;
  if (spikeSigma === 0 || window.length < spikeWindow) return undefined;
  const mean = window.reduce((sum, each) => sum + each, 0) / window.length;
  const variance = window.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (window.length - 1);
  // A window without any variation says nothing about what is usual.
  if (variance === 0 || value <= mean + spikeSigma * Math.sqrt(variance)) return undefined;
  return `its ${what} of ${value.toPrecision(4)} is more than ${spikeSigma} standard deviations above the mean ${mean.toPrecision(4)} of the last ${window.length} steps`;
}

/** Whether a step is taken. A pure function of what is saved, so that a resumed run leaves out the same steps. */
export function judge(options: GuardOptions, state: GuardState, { loss, gradNorm }: StepNumbers): Verdict {
  const skip =
    problem('loss', loss, state.losses, options) ?? problem('gradient norm', gradNorm, state.gradNorms, options);
  if (skip !== undefined) return { skip, state: { ...state, skips: state.skips + 1 } };
  if (options.spikeSigma === 0) return { state: FRESH_GUARD };
  const shifted = (window: readonly number[], value: number): number[] =>
    [...window, value].slice(-options.spikeWindow);
  return {
    state: { skips: 0, losses: shifted(state.losses, loss), gradNorms: shifted(state.gradNorms, gradNorm) },
  };
}
