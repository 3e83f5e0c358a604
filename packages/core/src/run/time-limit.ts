import { millisecondsOf } from '../config/durations.ts';
import type { Host } from '../plugin/host.ts';
import type { Environment } from './environment.ts';

/** Timers take at most 2^31 - 1 ms. */
const LONGEST_TIMER_MS = 2 ** 30;

/** A signal that is aborted when the time is over. */
function deadline(milliseconds: number, host: Host, reason: string): { signal: AbortSignal; clear(): void } {
  const controller = new AbortController();
  const end = host.now() + milliseconds;
  let timer: NodeJS.Timeout | undefined;
  const wait = (): void => {
    const left = end - host.now();
    if (left > 0) timer = setTimeout(wait, Math.min(left, LONGEST_TIMER_MS)).unref();
    else {
      host.log('info', `${reason} is over: finishing the step and saving.`);
      controller.abort(reason);
    }
  };
  wait();
  return { signal: controller.signal, clear: () => clearTimeout(timer) };
}

/** Does `body` with a host that asks to stop when the time is over, as it does when the user asks to. */
export async function withinTime<T>(
  maxTime: string | undefined,
  environment: Environment,
  body: (limited: Environment) => Promise<T>,
): Promise<T> {
  if (maxTime === undefined) return body(environment);
  const { host } = environment;
  const limit = deadline(millisecondsOf(maxTime), host, `train.maxTime ${maxTime}`);
  try {
    return await body({ ...environment, host: { ...host, signal: AbortSignal.any([host.signal, limit.signal]) } });
  } finally {
    limit.clear();
  }
}
