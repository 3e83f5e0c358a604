/** Durations that are kept: enough for a median, few enough for a run of any length. */
const MAX_KEPT = 4096;

/** Times steps by the clock between points where the device has caught up, leaving out evaluation and checkpoints. */
export class Pace {
  readonly #now: () => number;
  /** Milliseconds of every `#stride`th step that was timed. */
  #kept: number[] = [];
  #stride = 1;
  #timed = 0;
  #latest: number | undefined;
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
      this.#latest = (time - this.#start.time) / steps;
      for (let index = 0; index < steps; index++) this.#keep(this.#latest);
    }
    this.#start = { step, time };
  }

  /** Something other than steps took the time since the last point. */
  restart(step: number): void {
    this.#start = { step, time: this.#now() };
  }

  /** Median milliseconds per step, over all steps timed; of a long run over steps spread evenly. */
  median(): number | undefined {
    const sorted = this.#kept.toSorted((a, b) => a - b);
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 === 1
      ? sorted[middle]
      : sorted.length > 0
        ? (sorted[middle - 1]! + sorted[middle]!) / 2
        : undefined;
  }

  /** Milliseconds of the latest step. */
  latest(): number | undefined {
    return this.#latest;
  }

  #keep(milliseconds: number): void {
    if (this.#timed++ % this.#stride !== 0) return;
    this.#kept.push(milliseconds);
    if (this.#kept.length < MAX_KEPT) return;
    this.#kept = this.#kept.filter((_, index) => index % 2 === 0);
    this.#stride *= 2;
  }
}
