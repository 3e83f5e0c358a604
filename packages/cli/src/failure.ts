import { inspect } from 'node:util';

import type { LlmxError } from '@llmx/core';
import { type Command, Errors } from '@oclif/core';

import { interruptStatus } from './interrupt.ts';
import { printJson } from './output.ts';
import { highlight } from './style.ts';
import { usageError } from './usage-error.ts';

export interface FailureContext {
  readonly json: boolean;
  /** The command that failed, if it came to that. */
  readonly command?: typeof Command;
  /** The signal that can have stopped it. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Tells the user about an error: its message and hint on standard error, or one line of JSON on standard output. The
 * stack is shown with LLMX_DEBUG=1 only.
 *
 * @returns the exit status
 */
export async function reportFailure(thrown: unknown, { json, command, signal }: FailureContext): Promise<number> {
  const failure = await failureOf(thrown, command);
  const { code, message, hint } = failure;
  if (json) printJson({ error: { code, message, hint: hint ?? null } });
  else process.stderr.write(`${highlight('red', message)}\n${hint === undefined ? '' : `${hint}\n`}`);
  if (process.env['LLMX_DEBUG'] === '1') process.stderr.write(`${inspect(thrown)}\n`);
  return exitStatus(failure, signal);
}

type Failure = Pick<LlmxError, 'code' | 'message' | 'hint' | 'kind'>;

async function failureOf(thrown: unknown, command: typeof Command | undefined): Promise<Failure> {
  const core = await import('@llmx/core').catch(() => undefined); // without it, nothing but a defect has been thrown
  if (core !== undefined && thrown instanceof Errors.CLIError) return usageError(thrown, command);
  if (core?.LlmxError.is(thrown)) return thrown;
  return {
    code: 'LLMX_INVARIANT',
    kind: 'failure',
    message: (thrown instanceof Error && thrown.message) || String(thrown),
    hint: 'This is a defect of llmx or of a plugin; please report it with the stack that LLMX_DEBUG=1 shows.',
  };
}

function exitStatus({ kind }: Failure, signal: AbortSignal | undefined): number {
  if (kind === 'user') return 2;
  return kind === 'interrupt' ? interruptStatus(signal?.reason) : 1;
}
