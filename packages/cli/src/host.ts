import os from 'node:os';
import { fileURLToPath } from 'node:url';

import type { Host } from '@llmx/core';

import { FIRST_PARTY } from './first-party.ts';
import { isAlive, processStart } from './process-identity.ts';

const MIB = 2 ** 20;
const KIB_PER_MIB = 1024;

/** What core needs of this process; `signal` and `log` are the command's. */
export const createHost = ({ signal, log }: Pick<Host, 'signal' | 'log'>): Host => ({
  cwd: process.cwd(),
  installRoot: fileURLToPath(new URL('..', import.meta.url)),
  signal,
  firstParty: FIRST_PARTY,
  process: {
    pid: process.pid,
    version: process.version,
    started: processStart(process.pid),
    hostname: os.hostname(),
    isAlive,
  },
  memory: () => ({
    residentMiB: process.memoryUsage.rss() / MIB,
    peakMiB: process.resourceUsage().maxRSS / KIB_PER_MIB, // libuv gives it in KiB on every system
  }),
  now: () => performance.now(),
  debug: process.env['LLMX_DEBUG'] === '1',
  log,
});
