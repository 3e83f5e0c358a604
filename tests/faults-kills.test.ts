// Killed with -9 again and again, at every phase of a run, it ends with the bytes of the uninterrupted run.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { nativeUnavailable } from '@llmx/backend-native';
import { verifyRun } from '@llmx/core';

import { type Fault, FaultyRuns, KILLED, seeded } from './support/faulty-runs.ts';

/** `npm run test:faults` */
const ALL = process.env['LLMX_TEST_FAULTS'] !== undefined;
/** Of each configuration on a backend; 8 x 63 = 504. */
const KILLS = ALL ? 63 : 1;
/** They run side by side in full (scripts/test.mjs), so this is the limit of all. */
const TIME_LIMIT_MS = 18 * 60_000;
/** Kills in a row before a run is left alone, so that it ends and is compared. */
const KILLS_PER_RUN = 10;
const missing = nativeUnavailable();

let runs: FaultyRuns;
beforeAll(async () => void (runs = await FaultyRuns.create()), 60_000);
afterAll(() => runs.tiny.remove());

const PLACES = ['before', 'half', 'after'] as const;

/** A fault of each phase, the phases in turn. Counts reach a little beyond what happens in a whole run. */
function nextFault(kill: number, random: (limit: number) => number, startMs: number): Fault {
  const place = PLACES[random(PLACES.length)]!;
  const faults: readonly (() => Fault)[] = [
    () => ({ phase: 'checkpoint', count: 1 + random(110), place }),
    () => ({ phase: 'step', count: 1 + random(6), delay: random(15) }),
    () => ({ phase: 'resume', count: 1 + random(70), place }),
    () => ({ phase: 'evaluation', count: 1 + random(4), delay: random(5) }),
    () => ({ phase: 'checkpoint', count: 1 + random(330), place }),
    () => ({ phase: 'metrics', count: 1 + random(8), place }),
    () => ({ phase: 'read', count: 1 + random(40), place: 'before' }),
    () => ({ phase: 'start', count: 0, delay: random(startMs) }),
  ];
  return faults[kill % faults.length]!();
}

async function killAndCompare(config: string, seed: number): Promise<Record<string, number>> {
  const random = seeded(seed);
  const begun = performance.now();
  const expected = await runs.finish(config, `${config}-whole`);
  const startMs = (performance.now() - begun) / 2;
  const killed: Record<string, number> = {};
  let [kills, attempts] = [0, random(8)];
  for (let run = 0; kills < KILLS; run++) {
    const name = `${config}-${run}`;
    for (let inRun = 0; inRun < KILLS_PER_RUN && kills < KILLS;) {
      const fault = nextFault(attempts++, random, startMs);
      const { signal, status, stderr } = await runs.start(config, name, fault).ended;
      if (signal === null) {
        expect({ status, stderr }, JSON.stringify(fault)).toEqual({ status: 0, stderr: '' });
        break; // done before it came to the fault
      }
      killed[fault.phase] = (killed[fault.phase] ?? 0) + 1;
      kills += 1;
      inRun += 1;
    }
    expect(await runs.finish(config, name), `${name} after ${kills} kills`).toEqual(expected);
    await verifyRun({ run: name }, { host: runs.tiny.host() });
  }
  return killed;
}

describe.concurrent('killed in every phase, a run ends with the bytes of the uninterrupted one', () => {
  test.for(KILLED)('%s', { timeout: TIME_LIMIT_MS }, async (config, { skip, annotate }) => {
    skip(config.endsWith('native') && missing !== undefined, `no C++ engine: ${missing}`);
    const killed = await killAndCompare(config, 10 + KILLED.indexOf(config));
    await annotate(`${config}: kills by phase ${JSON.stringify(killed)}`);
    if (ALL) expect(Object.keys(killed).length, JSON.stringify(killed)).toBe(7);
  });
});
