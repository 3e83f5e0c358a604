import fs from 'node:fs';
import { resolve } from 'node:path';

import { LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import type { DatasetInfo } from '../plugin/types.ts';
import { datasetInfo } from './dataset-json.ts';
import type { DatasetWriter, NamedTokenizer } from './dataset-writer.ts';
import { type InputStream, readDocuments } from './documents.ts';
import { type Input, listInputs } from './inputs.ts';
import { throwIfInterrupted } from './interruption.ts';
import { createOutputDirectory } from './output-directory.ts';
import { Splitter } from './split.ts';

const MAX_VAL_FRACTION = 0.5;
const PROGRESS_INTERVAL_MS = 100;

export interface PrepareProgress {
  readonly documents: number;
  readonly tokens: number;
  /** Bytes of input read, and those there are where that is known. */
  readonly bytes: number;
  readonly totalBytes?: number;
}

export interface PrepareOptions {
  /** Files, folders, globs, and `-` for standard input. */
  readonly inputs: readonly string[];
  /** Folder of the dataset. */
  readonly out: string;
  readonly tokenizer: NamedTokenizer;
  /** Key of the text in JSONL; default `text`. */
  readonly textField?: string;
  /** Share of the documents held out as split `val`, 0 to 0.5; default 0.1. */
  readonly valFraction?: number;
  /** Whether a dataset at `out` may be replaced; default `false`. */
  readonly force?: boolean;
  readonly host: Host;
  readonly stdin?: InputStream;
  /** Called a few times a second, and at the end. */
  readonly onProgress?: (progress: PrepareProgress) => void;
}

/** What was written; `directory` is absolute. */
export interface PrepareSummary extends DatasetInfo {
  readonly directory: string;
}

/**
 * Turns text into a token dataset. It appears at `out` when it is complete; after an error or an interruption nothing is
 * left there. The same inputs give the same bytes.
 *
 * @throws LlmxError `LLMX_USAGE`, `LLMX_OUTPUT_EXISTS`, `LLMX_INPUT_MISSING`, `LLMX_INPUT_EMPTY`, `LLMX_INPUT_INVALID`,
 *   `LLMX_DISK_FULL`, `LLMX_IO_FAILED`, `LLMX_INTERRUPTED`
 */
export async function prepareDataset(options: PrepareOptions): Promise<PrepareSummary> {
  const { host, tokenizer, force = false, valFraction = 0.1 } = options;
  checkFraction(valFraction);
  const inputs = await listInputs(options.inputs, host.cwd);
  // Loaded here because Arrow takes longer to load than most commands run.
  const { DatasetWriter: Writer } = await import('./dataset-writer.ts');
  throwIfInterrupted(host.signal);
  const directory = realPath(resolve(host.cwd, options.out));
  const output = createOutputDirectory(directory, force, host);
  const writer = new Writer(output.path, tokenizer);
  try {
    await writeDocuments(inputs, new Splitter(valFraction, tokenizer, writer), writer, options);
    const dataset = writer.finish();
    throwIfInterrupted(host.signal);
    output.commit();
    return { directory, ...datasetInfo(dataset) };
  } catch (error) {
    try {
      writer.abort();
    } finally {
      output.discard();
    }
    throw naming(error, output.path, directory);
  }
}

/** The error with the folder that the user knows in place of the temporary one. */
const naming = (error: unknown, temporary: string, directory: string): unknown =>
  LlmxError.is(error)
    ? new LlmxError(error.code, error.message.replaceAll(temporary, directory), { hint: error.hint, cause: error })
    : error;

async function writeDocuments(
  inputs: readonly Input[],
  splitter: Splitter,
  writer: DatasetWriter,
  { textField = 'text', stdin, host, onProgress }: PrepareOptions,
): Promise<void> {
  const total = totalBytes(inputs);
  let [bytes, reported] = [0, host.now()];
  const report = () => onProgress?.({ ...writer.totals, bytes, ...(total === undefined ? {} : { totalBytes: total }) });
  const onBytes = (count: number) => void (bytes += count);
  for await (const document of readDocuments(inputs, { textField, stdin, signal: host.signal, onBytes })) {
    splitter.add(document);
    if (host.now() - reported < PROGRESS_INTERVAL_MS) continue;
    report();
    reported = host.now();
  }
  splitter.finish();
  report();
}

const totalBytes = (inputs: readonly Input[]): number | undefined =>
  inputs.reduce<number | undefined>(
    (sum, input) => (sum === undefined || input === 'stdin' ? undefined : sum + input.size),
    0,
  );

function checkFraction(fraction: number): void {
  if (fraction >= 0 && fraction <= MAX_VAL_FRACTION) return;
  throw new LlmxError(
    'LLMX_USAGE',
    `The validation fraction is ${fraction}; it must lie between 0 and ${MAX_VAL_FRACTION}.`,
    {
      hint: 'Give another --val-fraction, e.g. 0.1.',
    },
  );
}

/** A link to a folder stands for the folder: the link itself is not replaced. */
const realPath = (path: string): string => (fs.existsSync(path) ? fs.realpathSync(path) : path);
