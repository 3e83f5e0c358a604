import { LlmxError } from '../errors/index.ts';
import type { HostBatch, TokenIds, Tokenizer, TokenReader } from '../plugin/types.ts';
import { windowOrder } from './order.ts';

/**
 * `stream`: documents follow each other and see each other. `documents`: the same windows, but nothing crosses the end
 * of a document.
 */
export type Packing = 'stream' | 'documents';

/** How windows become batches. */
export interface WindowShape {
  /** Tokens per window: the context length. */
  readonly time: number;
  /** Labels per position. */
  readonly lookahead: number;
  readonly packing: Packing;
  /** Id that ends a document. */
  readonly endOfText: number;
}

/** Windows in a split: window k holds the tokens k * T to k * T + T, and the incomplete last one is dropped. */
export const windowCount = (tokens: number, contextLength: number): number =>
  Math.max(0, Math.floor((tokens - 1) / contextLength));

/**
 * `windowCount`, where there has to be a window; `split` names the split for the message.
 *
 * @throws LlmxError `LLMX_DATASET_TOO_SMALL`
 */
export function requireWindows(tokens: number, contextLength: number, split: string): number {
  const count = windowCount(tokens, contextLength);
  if (count > 0) return count;
  throw new LlmxError(
    'LLMX_DATASET_TOO_SMALL',
    `The split "${split}" holds ${tokens} tokens; one window of contextLength ${contextLength} needs ${contextLength + 1}.`,
    { hint: 'Choose a smaller contextLength, or prepare more data.' },
  );
}

/**
 * Reads windows, one per row, and labels them: view j at position t is the token t + 1 + j, or -1 beyond the window. With
 * `documents`, a label in another document than its input is -1 too, and the batch has segments and positions. With
 * `stream` that holds for the views after the first only, which are guesses beyond the next token.
 */
export function assembleBatch(
  args: WindowShape & { readonly reader: TokenReader; readonly windows: readonly number[] },
): HostBatch {
  const { reader, windows, time, lookahead, packing } = args;
  const size = windows.length * time;
  const tokens = new Int32Array(size);
  const labels = new Int32Array(size * lookahead).fill(-1);
  const segments = new Int32Array(size);
  const positions = new Int32Array(size);
  for (const [row, window] of windows.entries()) {
    const ids = reader.read(window * time, time + 1);
    const documents = documentsOf(ids, args.endOfText);
    tokens.set(ids.subarray(0, time), row * time);
    segments.set(documents.subarray(0, time), row * time);
    fillPositions(positions.subarray(row * time, (row + 1) * time), documents);
    fillLabels(labels.subarray(row * time * lookahead, (row + 1) * time * lookahead), ids, documents, args);
  }
  const batch = { batch: windows.length, time, lookahead, tokens, labels };
  return packing === 'documents' ? { ...batch, segments, positions } : batch;
}

/** Number of each token's document within the window; an end of text belongs to the document that it ends. */
function documentsOf(ids: TokenIds, endOfText: number): Int32Array {
  const documents = new Int32Array(ids.length);
  for (let t = 1; t < ids.length; t++) documents[t] = documents[t - 1]! + (ids[t - 1] === endOfText ? 1 : 0);
  return documents;
}

function fillPositions(positions: Int32Array, documents: Int32Array): void {
  for (let t = 1; t < positions.length; t++)
    positions[t] = documents[t] === documents[t - 1] ? positions[t - 1]! + 1 : 0;
}

function fillLabels(
  labels: Int32Array,
  ids: TokenIds,
  documents: Int32Array,
  { time, lookahead, packing }: WindowShape,
): void {
  for (let view = 0; view < lookahead; view++) {
    const crosses = packing === 'stream' && view === 0;
    for (let t = 0; t + 1 + view <= time; t++) {
      const target = t + 1 + view;
      if (crosses || documents[target] === documents[t]) labels[t * lookahead + view] = ids[target]!;
    }
  }
}

/** The batches of a training run, each a pure function of its step. */
export interface TrainingBatches {
  /** Sequences per epoch. */
  readonly windowsPerEpoch: number;
  /** Windows of micro-batch `micro` (from 0) of `step` (from 1), in the order of its rows. */
  windows(step: number, micro: number): number[];
  micro(step: number, micro: number): { readonly batch: HostBatch; readonly windows: number[] };
}

/**
 * Batches of `batchSize` windows, `gradAccumulation` of them a step. Sequence i of a run, counted over steps,
 * micro-batches and rows, is window `windowOrder(seed, floor(i / n), n)(i mod n)` of the n there are.
 *
 * @throws LlmxError `LLMX_DATASET_TOO_SMALL`
 */
export function trainingBatches(
  args: WindowShape & {
    readonly reader: TokenReader;
    readonly seed: number;
    readonly batchSize: number;
    readonly gradAccumulation: number;
  },
): TrainingBatches {
  const { reader, seed, batchSize, gradAccumulation } = args;
  const windowsPerEpoch = requireWindows(reader.tokens, args.time, 'train');
  const orderOf = latest((epoch) => windowOrder(seed, epoch, windowsPerEpoch));
  const windowOf = (sequence: number): number =>
    orderOf(Math.floor(sequence / windowsPerEpoch))(sequence % windowsPerEpoch);
  const windows = (step: number, micro: number): number[] => {
    const first = ((step - 1) * gradAccumulation + micro) * batchSize;
    return Array.from({ length: batchSize }, (_, row) => windowOf(first + row));
  };
  return {
    windowsPerEpoch,
    windows,
    micro(step, micro) {
      const chosen = windows(step, micro);
      return { batch: assembleBatch({ ...args, windows: chosen }), windows: chosen };
    },
  };
}

/** `f`, remembering its latest value; `f` must be pure. */
function latest<T>(f: (argument: number) => T): (argument: number) => T {
  let last: { argument: number; value: T } | undefined;
  return (argument) => {
    if (last?.argument !== argument) last = { argument, value: f(argument) };
    return last.value;
  };
}

/** The windows that an evaluation reads: all of them, or `limit` spread evenly. */
export function evaluationWindows(totalWindows: number, limit = totalWindows): number[] {
  const count = Math.min(limit, totalWindows);
  return Array.from({ length: count }, (_, index) => Math.floor((index * totalWindows) / count));
}

/** UTF-8 bytes of the next-token targets that are scored, for bits per byte. */
export function bytesOfTargets(
  { labels, lookahead }: HostBatch,
  { byteLengths }: Pick<Tokenizer, 'byteLengths'>,
): number {
  let bytes = 0;
  for (let index = 0; index < labels.length; index += lookahead) {
    const label = labels[index]!;
    if (label >= 0) bytes += byteLengths[label] ?? 0;
  }
  return bytes;
}
