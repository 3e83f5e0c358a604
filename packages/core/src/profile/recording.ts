import { assert } from '../errors/index.ts';
import type { KernelTotals } from './kernel-totals.ts';
import type { KernelCall } from './time-kernels.ts';
import type { Span, TimedCall } from './timed-call.ts';
import { bytesMoved, operations } from './work.ts';

export type Phase = 'forward' | 'backward' | 'optimizer';

/** What happened in the measured steps. Between steps nothing is recorded. */
export class Recording {
  readonly steps: Span[] = [];
  readonly phases: Span<Phase>[] = [];
  /** Empty unless they are kept. */
  readonly calls: TimedCall[] = [];
  readonly #now: () => number;
  readonly #totals: KernelTotals;
  readonly #keepsCalls: boolean;
  #step: number | undefined;
  #phase: { readonly name: Phase; readonly start: number } | undefined;

  /** @param now milliseconds of a clock that never goes back */
  constructor(now: () => number, totals: KernelTotals, keepsCalls: boolean) {
    this.#now = now;
    this.#totals = totals;
    this.#keepsCalls = keepsCalls;
  }

  beginStep(): void {
    this.#step = this.#now();
  }

  endStep(name: string): void {
    assert(this.#step !== undefined, 'A step ends that did not begin.');
    this.enter(undefined);
    this.steps.push({ name, start: this.#step, milliseconds: this.#now() - this.#step });
    this.#step = undefined;
  }

  /** Ends the phase that goes on, if any, and begins another, if one is given. */
  enter(name: Phase | undefined): void {
    if (this.#step === undefined) return;
    const time = this.#now();
    if (this.#phase !== undefined) this.phases.push({ ...this.#phase, milliseconds: time - this.#phase.start });
    this.#phase = name === undefined ? undefined : { name, start: time };
  }

  called(call: KernelCall): void {
    if (this.#step === undefined) return;
    const { kernel: name, start, milliseconds } = call;
    const work = { name, start, milliseconds, bytes: bytesMoved(call), operations: operations(call) };
    this.#totals.add(work);
    if (this.#keepsCalls) this.calls.push({ ...work, ...shapesOf(call) });
  }
}

const shapesOf = ({ inputs, outputs }: KernelCall): Pick<TimedCall, 'inputs' | 'outputs'> => ({
  inputs: Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, [...shape]])),
  outputs: outputs.map(({ shape }) => [...shape]),
});
