import fs from 'node:fs';
import path from 'node:path';

import { replaceFile } from '../checkpoint/durable-file.ts';
import { ioError, LlmxError } from '../errors/index.ts';
import type { Recording } from './recording.ts';
import type { Span } from './timed-call.ts';

/** What traces begin with, so that they are known again. */
const START = '{"traceEvents":';

const PROCESS = 1;
/** Rows of the picture, in their order. */
const ROWS = { kernels: 1, phases: 2 } as const;

/** A stretch of time in the Trace Event Format, times in microseconds. */
interface CompleteEvent {
  readonly name: string;
  readonly ph: 'X';
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** A name for the process or for a row. */
const naming = (name: 'process_name' | 'thread_name', tid: number, value: string) => ({
  name,
  ph: 'M',
  pid: PROCESS,
  tid,
  args: { name: value },
});

// Whole nanoseconds: what lies within a step stays within it.
const nanoseconds = (milliseconds: number): number => Math.round(milliseconds * 1e6);

function completeEvent(
  { name, start, milliseconds }: Span,
  { origin, row }: { origin: number; row: keyof typeof ROWS },
  args?: CompleteEvent['args'],
): CompleteEvent {
  const from = nanoseconds(start - origin);
  const to = nanoseconds(start + milliseconds - origin);
  return {
    name,
    ph: 'X',
    pid: PROCESS,
    tid: ROWS[row],
    ts: from / 1000,
    dur: (to - from) / 1000,
    ...(args && { args }),
  };
}

/**
 * A recording in Chrome's Trace Event Format, which chrome://tracing and Perfetto open: kernels in one row, steps and
 * their phases in another, from the first step on.
 */
export function chromeTrace({ steps, phases, calls }: Recording, title: string): string {
  const origin = steps[0]?.start ?? 0;
  const events = [
    naming('process_name', 0, title),
    naming('thread_name', ROWS.kernels, 'kernels'),
    naming('thread_name', ROWS.phases, 'steps and phases'),
    ...[...steps, ...phases].map((span) => completeEvent(span, { origin, row: 'phases' })),
    ...calls.map((call) => {
      const { inputs, outputs, bytes, operations } = call;
      return completeEvent(call, { origin, row: 'kernels' }, { inputs, outputs, bytes, operations });
    }),
  ];
  return `${START}[\n${events.map((event) => JSON.stringify(event)).join(',\n')}\n],"displayTimeUnit":"ms"}\n`;
}

function isTrace(file: string): boolean {
  const fd = fs.openSync(file, 'r');
  try {
    const head = Buffer.alloc(START.length);
    return fs.readSync(fd, head) === head.length && head.toString('latin1') === START;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Makes sure, before any work, that a trace can be written to a file, and that it takes the place of nothing but an
 * earlier trace.
 *
 * @throws LlmxError `LLMX_OUTPUT_EXISTS`, `LLMX_IO_FAILED`
 */
export function checkTraceFile(file: string): void {
  try {
    fs.opendirSync(path.dirname(file)).closeSync(); // fails where it is no folder
    fs.accessSync(path.dirname(file), fs.constants.W_OK);
    if (!fs.existsSync(file) || isTrace(file)) return;
  } catch (cause) {
    throw ioError(cause, file, 'write');
  }
  throw new LlmxError('LLMX_OUTPUT_EXISTS', `There is a file at "${file}" already, and it is not a trace.`, {
    hint: 'Give the trace another name.',
  });
}

/**
 * Writes a trace to a file, which always holds the old or the new one whole.
 *
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export const writeTrace = (file: string, recording: Recording, title: string): void =>
  replaceFile(file, chromeTrace(recording, title));
