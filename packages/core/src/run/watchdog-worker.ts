/** The thread that waits for the next sign of life of training, and says so when there is none for too long. */
import fs from 'node:fs';
import { workerData } from 'node:worker_threads';

import { ACTIVITIES, type WatchdogData } from './watchdog.ts';

const STANDARD_ERROR = 2;
const [BEAT, STEP, ACTIVITY] = [0, 1, 2];

const { memory, milliseconds, setting } = workerData as WatchdogData;
const cells = new Int32Array(memory);
for (let told = 0; ;) {
  const beat = Atomics.load(cells, BEAT);
  const outcome = Atomics.wait(cells, BEAT, beat, milliseconds);
  if (outcome !== 'timed-out' || told === beat) continue;
  told = beat;
  const activity = ACTIVITIES[Atomics.load(cells, ACTIVITY)] ?? 'starting';
  const text = `Warning: step ${Atomics.load(cells, STEP)} hangs: ${activity} has taken more than train.watchdog ${setting}.\n`;
  // The main thread is busy with what hangs, so nothing that it would have to print can be used.
  fs.writeSync(STANDARD_ERROR, text);
}
