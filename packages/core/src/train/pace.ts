/** Times steps by the clock between points where the device has caught up, leaving out evaluation and checkpoints. */
export class Pace {
  readonly #now: () => number;
  /** Milliseconds per step, one entry per step. */
  readonly #durations: number[] = [];
  #start: { readonly step: number; readonly time: number } | undefined;

  /** `now` in milliseconds of a clock that never goes back. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** The device has finished `step`: the steps since the last such point took the time since then. */
  caughtUp(step: number): void {
    const time = this.#now();
    if (this.#start !== undefined && step > this.#start.step) {
      const steps = step - this.#start.step;
      for (let index = 0; index < steps; index++) this.#durations.push((time - this.#start.time) / steps);
    }
    this.#start = { step, time };
  }

  /** Something other than steps took the time since the last point. */
  restart(step: number): void {
    this.#start = { step, time: this.#now() };
  }

  /** Median milliseconds per step, over all steps timed. */
  median(): number | undefined {
    const sorted = this.#durations.toSorted((a, b) => a - b);
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 === 1
      ? sorted[middle]
      : sorted.length > 0
        ? (sorted[middle - 1]! + sorted[middle]!) / 2
        : undefined;
  }

  /** Milliseconds of the latest step. */
  latest(): number | undefined {
    return this.#durations.at(-1);
  }
}
