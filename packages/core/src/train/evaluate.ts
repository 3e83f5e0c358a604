import { assembleBatch, bytesOfTargets, evaluationWindows, type Packing, requireWindows } from '../data/index.ts';
import { LlmxError } from '../errors/index.ts';
import { crossEntropy, labelsOfView } from '../objective/next-token.ts';
import type { Model, Params, Tokenizer, TokenReader } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { EVALUATION, upload } from './forward-context.ts';

export interface EvaluationData {
  readonly reader: TokenReader;
  readonly tokenizer: Tokenizer;
  /** Name of the split, for messages. */
  readonly split: string;
  readonly packing: Packing;
  /** Tokens per window. */
  readonly contextLength: number;
  readonly batchSize: number;
  /** Evaluate about this many tokens, in windows spread evenly over the split; 0: all. */
  readonly maxTokens: number;
}

export interface EvaluationResult {
  /** Mean negative log-likelihood, nats per token. */
  readonly loss: number;
  /** exp(loss), per token. */
  readonly perplexity: number;
  /** Loss per UTF-8 byte of the scored targets, in bits; comparable between tokenizers. */
  readonly bitsPerByte: number;
  /** Targets scored. */
  readonly tokens: number;
  /** UTF-8 bytes of the targets scored; end of text counts none. */
  readonly bytes: number;
}

export interface EvaluationProgress {
  readonly tokens: number;
  readonly totalTokens: number;
}

/**
 * Next-token loss over non-overlapping windows of a split, end-of-text predictions included.
 *
 * @throws LlmxError `LLMX_DATASET_TOO_SMALL`, `LLMX_DATASET_DAMAGED`, `LLMX_CONTEXT_TOO_LONG`, `LLMX_INTERRUPTED`
 */
export async function evaluate(
  { model, params }: { model: Model; params: Params },
  data: EvaluationData,
  signal: AbortSignal,
  onProgress?: (progress: EvaluationProgress) => void,
): Promise<EvaluationResult> {
  const { reader, tokenizer, packing, contextLength: time, batchSize, maxTokens } = data;
  const total = requireWindows(reader.tokens, time, data.split);
  const limit = maxTokens === 0 ? total : Math.min(total, Math.ceil(maxTokens / time));
  const windows = evaluationWindows(total, limit);
  let [sum, tokens, bytes] = [0, 0, 0];
  for (let start = 0; start < windows.length; start += batchSize) {
    if (signal.aborted) throw new LlmxError('LLMX_INTERRUPTED', `Evaluation was stopped by ${String(signal.reason)}.`);
    const chosen = windows.slice(start, start + batchSize);
    const host = assembleBatch({
      reader,
      windows: chosen,
      time,
      lookahead: 1,
      packing,
      endOfText: tokenizer.endOfText,
    });
    const losses = tf.tidy(() => {
      const batch = upload(host);
      const hidden = model.hidden(params, batch, EVALUATION);
      return tf.sum(crossEntropy(model, params, hidden, labelsOfView(batch.labels, 0)));
    });
    const [batchSum] = await losses.data();
    losses.dispose();
    sum += batchSum!;
    tokens += host.labels.reduce((count, label) => count + (label >= 0 ? 1 : 0), 0);
    bytes += bytesOfTargets(host, tokenizer);
    onProgress?.({ tokens, totalTokens: windows.length * time });
    // Lets signals and the progress display in.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const loss = sum / tokens;
  return { loss, perplexity: Math.exp(loss), bitsPerByte: sum / Math.LN2 / bytes, tokens, bytes };
}
