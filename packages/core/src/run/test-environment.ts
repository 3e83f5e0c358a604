import type { Environment } from './environment.ts';

interface Surroundings {
  readonly signal?: AbortSignal;
  /** Gets every message that a run logs. */
  readonly warn?: (message: string) => void;
  readonly bundled?: Environment['bundled'];
}

/** Surroundings of runs below `folder` within a test's own process; nobody else is alive in them. */
export function testEnvironment(
  folder: string,
  coreModule: Environment['coreModule'],
  { signal = new AbortController().signal, warn = () => undefined, bundled = [] }: Surroundings = {},
): Environment {
  const host = {
    cwd: folder,
    installRoot: folder,
    signal,
    firstParty: {},
    process: { pid: 1, version: 'v20.19.0', started: '0', hostname: 'test', isAlive: () => false },
    memory: () => ({ residentMiB: 1, peakMiB: 2 }),
    now: () => performance.now(),
    log: (_level: string, message: string) => warn(message),
  };
  return { host, coreModule, bundled };
}
