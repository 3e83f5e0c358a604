import { LlmxError } from '../errors/index.ts';

/** The error to throw when the user asked to stop; what was written so far is removed on its way out. */
export function interruption(signal: AbortSignal): LlmxError {
  const by = typeof signal.reason === 'string' ? ` by ${signal.reason}` : '';
  return new LlmxError('LLMX_INTERRUPTED', `Data preparation was stopped${by} before it was complete.`, {
    hint: 'Nothing was left behind; run the command again.',
  });
}

/** @throws LlmxError `LLMX_INTERRUPTED` */
export function throwIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw interruption(signal);
}
