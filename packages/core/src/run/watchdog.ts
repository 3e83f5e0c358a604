import { Worker } from 'node:worker_threads';

import { millisecondsOf } from '../config/durations.ts';

/** What training can be busy with. */
export const ACTIVITIES = ['forward and backward pass', 'evaluation', 'saving a checkpoint'] as const;
export type Activity = (typeof ACTIVITIES)[number];

export interface WatchdogData {
  /** Three int32: signs of life so far, step, activity. */
  readonly memory: SharedArrayBuffer;
  readonly milliseconds: number;
  /** The time as configured. */
  readonly setting: string;
}

// Threads run built files; from a source file the build beside it is used.
const WORKER_URL = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/run/watchdog-worker.js', import.meta.url)
  : new URL('./watchdog-worker.js', import.meta.url);

/** Names on standard error a step that hangs, from a thread of its own, since a hanging step holds the main one. */
export class Watchdog {
  readonly #cells: Int32Array;
  readonly #worker: Worker;

  /** `setting` is a time of the configuration. */
  constructor(setting: string) {
    const memory = new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT);
    this.#cells = new Int32Array(memory);
    const workerData: WatchdogData = { memory, milliseconds: millisecondsOf(setting), setting };
    this.#worker = new Worker(WORKER_URL, { execArgv: [], workerData });
    this.#worker.unref();
  }

  /** Training lives, and turns to this. */
  beat(step: number, activity: Activity): void {
    Atomics.store(this.#cells, 1, step);
    Atomics.store(this.#cells, 2, ACTIVITIES.indexOf(activity));
    Atomics.add(this.#cells, 0, 1);
    Atomics.notify(this.#cells, 0);
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}
