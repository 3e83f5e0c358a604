import { ERROR_CODES, type ErrorCode, type ErrorKind } from './codes.ts';

const brand = Symbol.for('llmx.error');

export interface LlmxErrorOptions {
  /** What the user can do about it, one sentence. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
  /** The plugin whose code raised the error. */
  readonly plugin?: string | undefined;
}

/**
 * Every error a user can meet. The message says what happened, with the value and the limit, in one sentence; `hint`
 * says what to do next.
 */
export class LlmxError extends Error {
  override readonly name = 'LlmxError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  /** The plugin whose code raised the error; the hook driver fills it in. */
  plugin: string | undefined;

  constructor(code: ErrorCode, message: string, options: LlmxErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    Object.defineProperty(this, brand, { value: true });
    this.code = code;
    this.hint = options.hint;
    this.plugin = options.plugin;
  }

  /** Who has to act: the user, whoever maintains the failing code, or nobody (an interrupt). */
  get kind(): ErrorKind {
    return ERROR_CODES[this.code].kind;
  }

  /** Recognises errors of any copy of this module, where `instanceof` would not. */
  static is(error: unknown): error is LlmxError {
    return typeof error === 'object' && error !== null && brand in error;
  }
}

/**
 * Checks what must hold whatever the user does.
 *
 * @throws LlmxError `LLMX_INVARIANT`
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition)
    throw new LlmxError('LLMX_INVARIANT', message, { hint: 'This is a defect of llmx; please report it.' });
}

/** Several problems found in one go, each an error of its own; thrown so that a user can mend all of them at once. */
export class LlmxProblems extends LlmxError {
  readonly problems: readonly LlmxError[];

  constructor(problems: readonly [LlmxError, ...LlmxError[]]) {
    const [first] = problems;
    const message = problems.length === 1 ? first.message : problems.map((problem) => problem.message).join('\n');
    const hints = [...new Set(problems.flatMap((problem) => problem.hint ?? []))];
    super(first.code, message, { hint: hints.length > 0 ? hints.join('\n') : undefined, plugin: first.plugin });
    this.problems = problems;
  }
}
