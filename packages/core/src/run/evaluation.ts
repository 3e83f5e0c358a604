import { resolve } from 'node:path';

import { LlmxError } from '../errors/index.ts';
import { evaluate, type EvaluationProgress, type EvaluationResult } from '../train/evaluate.ts';
import { openConfiguredDataset } from './dataset.ts';
import type { Environment } from './environment.ts';
import { openSavedModel, type SavedModelOptions } from './saved-model.ts';

export interface EvaluateOptions extends SavedModelOptions {
  /** Folder of a dataset; default: the one the run was trained on. */
  readonly data?: string | undefined;
  /** Default: the configured evaluation split. */
  readonly split?: string | undefined;
  /** Tokens per window; default: the trained context length. */
  readonly contextLength?: number | undefined;
  /** About how many tokens to score, spread evenly over the split; default: all. */
  readonly maxTokens?: number | undefined;
  readonly onProgress?: (progress: EvaluationProgress) => void;
}

export interface EvaluateResult extends EvaluationResult {
  readonly checkpoint: string;
  readonly step: number;
  readonly data: string;
  readonly split: string;
  readonly contextLength: number;
  readonly backend: string;
}

/**
 * Evaluates a trained model on a split of a dataset made with its tokenizer.
 *
 * @throws LlmxError what `openSavedModel` throws; `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`,
 *   `LLMX_DATASET_TOO_SMALL`, `LLMX_TOKENIZER_MISMATCH`, `LLMX_CONTEXT_TOO_LONG`, `LLMX_INTERRUPTED`
 */
export async function evaluateRun(options: EvaluateOptions, environment: Environment): Promise<EvaluateResult> {
  const { host } = environment;
  const saved = await openSavedModel(options, environment);
  const { config, registry } = saved.resolved;
  const path = options.data === undefined ? config.data.train : resolve(host.cwd, options.data);
  const { split = config.data.valSplit, contextLength = config.model.contextLength } = options;
  const dataset = openConfiguredDataset(registry, { source: config.data.source, train: path });
  if (dataset.tokenizer.hash !== saved.tokenizer.hash)
    throw new LlmxError(
      'LLMX_TOKENIZER_MISMATCH',
      `The dataset "${path}" was made with the tokenizer "${dataset.info.tokenizer.name}", which is not the model's.`,
      { hint: "Prepare the data with the model's tokenizer." },
    );
  const reader = dataset.split(split);
  try {
    const result = await evaluate(
      saved,
      {
        reader,
        tokenizer: saved.tokenizer,
        split,
        packing: config.data.packing,
        contextLength,
        batchSize: config.train.batchSize,
        maxTokens: options.maxTokens ?? 0,
      },
      host.signal,
      options.onProgress,
    );
    const { checkpoint, step, backend } = saved;
    return { ...result, checkpoint, step, data: path, split, contextLength, backend: backend.name };
  } finally {
    reader.close();
    saved.close();
  }
}
