import fs from 'node:fs';

import { ioError, LlmxError, suggestion } from '../errors/index.ts';
import { nextTurn, onFile } from './files.ts';
import type { Input, InputFile } from './inputs.ts';
import { interruption, throwIfInterrupted } from './interruption.ts';
import { textProblem, withoutMark } from './utf8.ts';

const MEBIBYTE = 1_048_576;
const CHUNK_BYTES = MEBIBYTE;
/** Documents have to fit into memory several times over. */
const MAX_DOCUMENT_BYTES = 1024 * MEBIBYTE;
/** A line becomes a JavaScript string, whose length V8 limits to about 512 Mi. */
const MAX_LINE_BYTES = 500 * MEBIBYTE;
const NEWLINE = 0x0a;
const OPENING_BRACE = 0x7b;
const MARK_BYTES = 3;

/** The text of one document, not empty, valid UTF-8; `source` is its file, with `:<line>` if it is a line. */
export interface TextDocument {
  readonly text: Uint8Array;
  readonly source: string;
}

/** What is needed of a readable stream. */
export interface InputStream extends AsyncIterable<Uint8Array | string> {
  destroy(error: Error): unknown;
}

export interface DocumentOptions {
  /** Key of the text in JSONL. */
  readonly textField: string;
  /** Standard input; needed where the inputs have it. */
  readonly stdin?: InputStream | undefined;
  readonly signal: AbortSignal;
  /** Called with the size of each piece of input that was read. */
  onBytes(count: number): void;
}

type Chunks = AsyncGenerator<Uint8Array>;

/**
 * The documents of all inputs in order, one in memory at a time. Empty ones are left out.
 *
 * @throws LlmxError `LLMX_INPUT_INVALID`, `LLMX_IO_FAILED`, `LLMX_INTERRUPTED`
 */
export async function* readDocuments(inputs: readonly Input[], options: DocumentOptions): AsyncGenerator<TextDocument> {
  for (const input of inputs) {
    if (input === 'stdin') yield* stdinDocuments(options);
    else if (input.format === 'text') yield* wholeText(fileChunks(input, options), input.name, input.size);
    else yield* jsonDocuments(fileChunks(input, options), input.name, options);
  }
}

async function* stdinDocuments(options: DocumentOptions): AsyncGenerator<TextDocument> {
  const chunks = stdinChunks(options);
  const head = await firstChunks(chunks);
  const all = chain(head, chunks);
  if (firstByte(head.at(-1)) === OPENING_BRACE) yield* jsonDocuments(all, 'stdin', options);
  else yield* wholeText(all, 'stdin', 0);
}

/** Chunks up to the first that has more than white space. Only the first can have a byte order mark, then a whole one. */
async function firstChunks(chunks: Chunks): Promise<Uint8Array[]> {
  const head: Uint8Array[] = [];
  for (let result = await chunks.next(); result.done !== true; result = await chunks.next()) {
    const start = head.length === 1 && head[0]!.length < MARK_BYTES ? head.splice(0) : [];
    head.push(joined([...start, result.value]));
    if ((head.length > 1 || head[0]!.length >= MARK_BYTES) && firstByte(head.at(-1)) !== undefined) break;
  }
  return head;
}

/** The first byte that is neither white space nor of a byte order mark. */
const firstByte = (bytes: Uint8Array = new Uint8Array()): number | undefined =>
  withoutMark(bytes).find((byte) => byte !== 0x20 && (byte < 0x09 || byte > 0x0d));

async function* chain(head: readonly Uint8Array[], rest: Chunks): Chunks {
  yield* head;
  yield* rest;
}

async function* stdinChunks({ stdin, signal, onBytes }: DocumentOptions): Chunks {
  if (stdin === undefined)
    throw new LlmxError('LLMX_INPUT_MISSING', 'There is no standard input, which "-" stands for.', {
      hint: 'Pipe text into the command, or name files.',
    });
  throwIfInterrupted(signal);
  // Nothing may ever come, so the wait itself has to end.
  const stop = () => stdin.destroy(interruption(signal));
  signal.addEventListener('abort', stop);
  try {
    for await (const chunk of stdin) {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
      onBytes(bytes.length);
      yield bytes;
    }
  } catch (cause) {
    throw ioError(cause, 'stdin', 'read');
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** The pieces of a file; a text comes in one, so that it need not be joined. */
async function* fileChunks({ path, name, size, format }: InputFile, { signal, onBytes }: DocumentOptions): Chunks {
  const descriptor = onFile(name, 'read', () => fs.openSync(path, 'r'));
  let first = format === 'text' ? Math.min(size, MAX_DOCUMENT_BYTES) : 0;
  try {
    for (;;) {
      await nextTurn();
      throwIfInterrupted(signal);
      const buffer = Buffer.allocUnsafe(Math.max(first, Math.min(size + 1, CHUNK_BYTES)));
      const count = onFile(name, 'read', () => fs.readSync(descriptor, buffer));
      onBytes(count);
      if (count === 0) return;
      first = 0;
      yield buffer.subarray(0, count);
    }
  } finally {
    fs.closeSync(descriptor);
  }
}

async function* wholeText(chunks: Chunks, source: string, size: number): AsyncGenerator<TextDocument> {
  if (size > MAX_DOCUMENT_BYTES) throw tooLarge(`"${source}"`, MAX_DOCUMENT_BYTES);
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.length;
    if (length > MAX_DOCUMENT_BYTES) throw tooLarge(`"${source}"`, MAX_DOCUMENT_BYTES);
    parts.push(chunk);
  }
  const bytes = joined(parts);
  checkText(bytes, source, 0);
  const text = withoutMark(bytes);
  if (text.length > 0) yield { text, source };
}

async function* jsonDocuments(
  chunks: Chunks,
  name: string,
  { textField }: DocumentOptions,
): AsyncGenerator<TextDocument> {
  for await (const { bytes, number, offset } of lines(chunks, name)) {
    checkText(bytes, name, offset);
    const line = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
    if (line.trim() === '') continue;
    const text = Buffer.from(textOf(line, textField, `"${name}" line ${number}`));
    if (text.length > 0) yield { text, source: `${name}:${number}` };
  }
}

interface Line {
  readonly bytes: Uint8Array;
  /** Counted from 1. */
  readonly number: number;
  /** Bytes before the line. */
  readonly offset: number;
}

/** Lines without their newlines, and without a byte order mark before the first. */
async function* lines(chunks: Chunks, name: string): AsyncGenerator<Line> {
  let number = 1;
  let offset = 0;
  let parts: Uint8Array[] = [];
  let length = 0;
  const take = (): Line => {
    const whole = joined(parts);
    const bytes = number === 1 ? withoutMark(whole) : whole;
    const line = { bytes, number, offset: offset + whole.length - bytes.length };
    [parts, length, number, offset] = [[], 0, number + 1, offset + whole.length + 1];
    return line;
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      parts.push(chunk.subarray(start, end));
      start = end + 1;
      yield take();
    }
    parts.push(chunk.subarray(start));
    length += chunk.length - start;
    if (length > MAX_LINE_BYTES) throw tooLarge(`"${name}" line ${number}`, MAX_LINE_BYTES);
  }
  yield take();
}

/** The text of a JSONL line; `where` names the line. */
function textOf(line: string, field: string, where: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw invalid(`${where} is not valid JSON.`, 'Mend or remove the line.', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${where} is not a JSON object.`, `Each line should be an object with the text under "${field}".`);
  const text: unknown = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : undefined;
  if (text === undefined)
    throw invalid(
      `${where} has no field "${field}".`,
      `Name the field with --text-field. ${suggestion(field, Object.keys(value))}`,
    );
  if (typeof text !== 'string')
    throw invalid(`The field "${field}" of ${where} is not a string.`, 'Name another --text-field.');
  // An escape can spell half of a surrogate pair, which UTF-8 cannot hold.
  if (line.includes('\\u') && /\p{Surrogate}/u.test(text))
    throw invalid(`The text of ${where} holds half of a surrogate pair.`, 'Mend or remove the line.');
  return text;
}

function checkText(bytes: Uint8Array, name: string, before: number): void {
  const found = textProblem(bytes);
  if (found === undefined) return;
  throw invalid(
    `"${name}" is not a text file: it ${found.problem} at byte ${before + found.offset}.`,
    'Give text in UTF-8.',
  );
}

const joined = (parts: readonly Uint8Array[]): Uint8Array => (parts.length === 1 ? parts[0]! : Buffer.concat(parts));

const invalid = (message: string, hint: string, cause?: unknown): LlmxError =>
  new LlmxError('LLMX_INPUT_INVALID', message, { hint, cause });

const tooLarge = (what: string, limit: number): LlmxError =>
  invalid(
    `${what} is larger than ${limit / MEBIBYTE} MiB, the most that is read as one document.`,
    'Cut it into several documents.',
  );
