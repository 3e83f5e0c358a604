/** Exit status of Grid Engine and others for "not finished, start me again"; schedulers can be told to requeue on it. */
const AGAIN = 99;
const STATUS: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143 };

/** Signals that schedulers can send some time before they end a job. */
export const REQUEUE_SIGNALS = ['SIGUSR1', 'SIGUSR2'] as const;
export type RequeueSignal = (typeof REQUEUE_SIGNALS)[number];

/** A signal that asks the program to stop. */
type Interrupt = 'SIGINT' | 'SIGTERM' | RequeueSignal;

/** Exit status after an interrupt; `undefined` is a limit that the run has set itself. */
export const interruptStatus = (reason: unknown): number => STATUS[String(reason)] ?? AGAIN;

/**
 * A signal that is aborted by the first SIGINT, SIGTERM or `requeueSignal`, with its name as the reason; a further SIGINT
 * or SIGTERM ends the process.
 */
export function interruptSignal(announce: (by: Interrupt) => void, requeueSignal?: RequeueSignal): AbortSignal {
  const controller = new AbortController();
  const stop = (by: Interrupt): void => {
    controller.abort(by);
    announce(by);
  };
  for (const by of ['SIGINT', 'SIGTERM'] as const)
    process.on(by, () => (controller.signal.aborted ? process.exit(interruptStatus(by)) : stop(by)));
  // It says that time is running out, not that the user is in a hurry, so a second one changes nothing.
  if (requeueSignal !== undefined)
    process.on(requeueSignal, () => (controller.signal.aborted ? undefined : stop(requeueSignal)));
  return controller.signal;
}
