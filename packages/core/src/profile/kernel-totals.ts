import type { MachinePeaks } from '../plugin/backend-types.ts';
import type { TimedCall } from './timed-call.ts';

/** How near a kernel comes to what the machine can do at best. */
export interface KernelLimit {
  /** What it would be waiting for at best. */
  readonly by: 'arithmetic' | 'memory';
  /** The time that this takes at the machine's peak, as a share of the time it took; above 1 where caches helped. */
  readonly share: number;
}

/** What a kernel did, per step. */
export interface KernelRow {
  readonly kernel: string;
  /** Whether it is the backend's own machine code; null where the backend does not tell. */
  readonly native: boolean | null;
  readonly calls: number;
  readonly milliseconds: number;
  /** Of the step's time, from 0 to 1. */
  readonly share: number;
  /** Read and written. */
  readonly bytes: number;
  readonly gigabytesPerSecond: number;
  /** 10^9 operations per second; null where the kernel multiplies no matrices. */
  readonly gflops: number | null;
  /** Null where there is neither memory to move nor a product. */
  readonly limit: KernelLimit | null;
}

/** Sums over the calls of a kernel. */
interface Sums {
  calls: number;
  milliseconds: number;
  bytes: number;
  operations: number | undefined;
  /** Milliseconds at the machine's peak: all of memory's, all of arithmetic's, and the larger of both call by call. */
  memory: number;
  arithmetic: number;
  least: number;
}

/** One step's share of what is summed over many. */
export interface PerStep {
  readonly steps: number;
  /** Mean duration of a step, ms. */
  readonly stepMilliseconds: number;
}

const PER_MILLISECOND = 1e6;

/** Adds up the calls of each kernel, and sets them against the machine's peaks. */
export class KernelTotals {
  readonly #peaks: MachinePeaks;
  readonly #native: ReadonlySet<string> | undefined;
  readonly #kernels = new Map<string, Sums>();

  /** @param nativeKernels kernels of the backend's own machine code, where it tells */
  constructor(peaks: MachinePeaks, nativeKernels?: readonly string[]) {
    this.#peaks = peaks;
    this.#native = nativeKernels && new Set(nativeKernels);
  }

  add({ name, milliseconds, bytes, operations }: Omit<TimedCall, 'inputs' | 'outputs'>): void {
    const memory = bytes / (this.#peaks.gigabytesPerSecond * PER_MILLISECOND);
    const arithmetic = (operations ?? 0) / (this.#peaks.gflops * PER_MILLISECOND);
    let sums = this.#kernels.get(name);
    if (sums === undefined) {
      sums = { calls: 0, milliseconds: 0, bytes: 0, operations: undefined, memory: 0, arithmetic: 0, least: 0 };
      this.#kernels.set(name, sums);
    }
    sums.calls += 1;
    sums.milliseconds += milliseconds;
    sums.bytes += bytes;
    if (operations !== undefined) sums.operations = (sums.operations ?? 0) + operations;
    sums.memory += memory;
    sums.arithmetic += arithmetic;
    sums.least += Math.max(memory, arithmetic);
  }

  /** A row per kernel, those that take most time first. */
  rows(perStep: PerStep): KernelRow[] {
    return [...this.#kernels]
      .map(([kernel, sums]) => this.#row(kernel, sums, perStep))
      .toSorted((a, b) => b.milliseconds - a.milliseconds);
  }

  #row(kernel: string, sums: Sums, { steps, stepMilliseconds }: PerStep): KernelRow {
    const rate = (amount: number): number =>
      sums.milliseconds === 0 ? 0 : amount / (sums.milliseconds * PER_MILLISECOND);
    return {
      kernel,
      native: this.#native === undefined ? null : this.#native.has(kernel),
      calls: sums.calls / steps,
      milliseconds: sums.milliseconds / steps,
      share: stepMilliseconds === 0 ? 0 : sums.milliseconds / steps / stepMilliseconds,
      bytes: sums.bytes / steps,
      gigabytesPerSecond: rate(sums.bytes),
      gflops: sums.operations === undefined ? null : rate(sums.operations),
      limit: limitOf(sums),
    };
  }
}

function limitOf({ milliseconds, memory, arithmetic, least }: Sums): KernelLimit | null {
  if (least === 0 || milliseconds === 0) return null;
  return { by: arithmetic > memory ? 'arithmetic' : 'memory', share: least / milliseconds };
}
