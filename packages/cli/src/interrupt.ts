const STATUS = { SIGINT: 130, SIGTERM: 143 } as const;

/** The signal that asked the program to stop. */
export type Interrupt = keyof typeof STATUS;

/** Exit status after an interrupt. */
export const interruptStatus = (reason: unknown): number => STATUS[reason === 'SIGTERM' ? reason : 'SIGINT'];

/**
 * A signal that is aborted by the first SIGINT or SIGTERM, with its name as the reason; the second ends the process.
 */
export function interruptSignal(announce: (by: Interrupt) => void): AbortSignal {
  const controller = new AbortController();
  const stop = (by: Interrupt): void => {
    if (controller.signal.aborted) process.exit(interruptStatus(by));
    controller.abort(by);
    announce(by);
  };
  process.on('SIGINT', () => stop('SIGINT'));
  process.on('SIGTERM', () => stop('SIGTERM'));
  return controller.signal;
}
