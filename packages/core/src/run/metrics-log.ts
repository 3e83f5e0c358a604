import fs from 'node:fs';

import { z } from 'zod';

import { writeAll } from '../checkpoint/durable-file.ts';
import { refuseForeign } from '../checkpoint/layout.ts';
import { ioError, LlmxError } from '../errors/index.ts';
import type { Metrics } from '../plugin/types.ts';

/** One line of metrics.jsonl: the metrics, and beside them `kind` and `step`. */
export interface MetricsRecord {
  readonly kind: 'train' | 'eval';
  /** Optimizer steps done. */
  readonly step: number;
  readonly metrics: Metrics;
}

/** JSON has no such numbers; they are written as these strings. */
const NON_FINITE: Readonly<Record<string, number>> = { NaN, Infinity, '-Infinity': -Infinity };

const lineSchema = z
  .object({ kind: z.enum(['train', 'eval']), step: z.int().min(0) })
  .catchall(z.union([z.number(), z.enum(['NaN', 'Infinity', '-Infinity'])]));

const encodeLine = ({ kind, step, metrics }: MetricsRecord): string =>
  `${JSON.stringify(
    // `kind` and `step` come first in the line and win over metrics of those names.
    Object.assign({ kind, step }, metrics, { kind, step }),
    (_, value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value),
  )}\n`;

/** The record in a line, if it is one. */
function decodeLine(line: string): MetricsRecord | undefined {
  try {
    const { kind, step, ...values } = lineSchema.parse(JSON.parse(line));
    const entries = Object.entries(values).map(
      ([name, value]) => [name, NON_FINITE[String(value)] ?? Number(value)] as const,
    );
    return { kind, step, metrics: Object.fromEntries(entries) };
  } catch {
    return undefined;
  }
}

interface Line {
  readonly text: string;
  /** Position in the file after the line, in bytes. */
  readonly end: number;
}

/** The lines of a file that end in a line break, in constant memory. */
function* completeLines(fd: number): Generator<Line> {
  const chunk = Buffer.alloc(1 << 16);
  let [rest, end] = [Buffer.alloc(0), 0];
  for (let count; (count = fs.readSync(fd, chunk)) > 0;) {
    rest = Buffer.concat([rest, chunk.subarray(0, count)]);
    let start = 0;
    for (let stop; (stop = rest.indexOf('\n', start)) >= 0; start = stop + 1) {
      end += stop + 1 - start;
      yield { text: rest.toString('utf8', start, stop), end };
    }
    rest = rest.subarray(start);
  }
}

/** Where a run stands that goes on. */
export interface LogPosition {
  /** Optimizer steps done. */
  readonly step: number;
  /** Whether the evaluation after that step, if one is due, is done too. */
  readonly evaluated: boolean;
}

const isAhead = (record: MetricsRecord, { step, evaluated }: LogPosition): boolean =>
  record.step > step || (record.step === step && record.kind === 'eval' && !evaluated);

/** Length of the part of the log that a run at that position has behind it, in bytes. */
function validLength(fd: number, position: LogPosition): number {
  let length = 0;
  for (const { text, end } of completeLines(fd)) {
    const record = decodeLine(text);
    // Behind a line that a power failure spoilt, nothing can be trusted.
    if (record === undefined || isAhead(record, position)) break;
    length = end;
  }
  return length;
}

/** Appends to a run's metrics.jsonl. A line is handed to the system at once, so it survives the end of the process. */
export class MetricsLog {
  readonly #file: string;
  readonly #fd: number;
  /** Length of the file up to its last complete line, in bytes. */
  #length: number;

  private constructor(file: string, fd: number, length: number) {
    this.#file = file;
    this.#fd = fd;
    this.#length = length;
  }

  /**
   * Opens the log, cut back to the records up to the position that the run continues from.
   *
   * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`, `LLMX_RUN_DAMAGED`
   */
  static open(file: string, position: LogPosition): MetricsLog {
    refuseForeign(file, 'file');
    try {
      const fd = fs.openSync(file, 'a+');
      const length = validLength(fd, position);
      if (length < fs.fstatSync(fd).size) {
        fs.ftruncateSync(fd, length);
        fs.fsyncSync(fd);
      }
      return new MetricsLog(file, fd, length);
    } catch (cause) {
      throw ioError(cause, file, 'open');
    }
  }

  /**
   * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
   */
  append(record: MetricsRecord): void {
    const line = Buffer.from(encodeLine(record));
    try {
      writeAll(this.#fd, line);
    } catch (cause) {
      fs.ftruncateSync(this.#fd, this.#length); // no half line is left
      throw ioError(cause, this.#file, 'write');
    }
    this.#length += line.length;
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}

/**
 * Reads a metrics.jsonl, also that of a run in progress: a last line without its line break is not there yet. No file,
 * no records.
 *
 * @throws LlmxError `LLMX_RUN_DAMAGED`
 */
export function readMetrics(file: string): MetricsRecord[] {
  refuseForeign(file, 'file');
  if (!fs.existsSync(file)) return [];
  const fd = fs.openSync(file, 'r');
  try {
    return Array.from(completeLines(fd), ({ text }, index) => {
      const record = decodeLine(text);
      if (record !== undefined) return record;
      throw new LlmxError('LLMX_RUN_DAMAGED', `Line ${index + 1} of "${file}" is not a metrics record.`, {
        hint: 'Delete that line.',
      });
    });
  } finally {
    fs.closeSync(fd);
  }
}
