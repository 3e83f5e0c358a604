import type { ChosenBackend } from '../backend/index.ts';
import { loadCheckpoint } from '../checkpoint/load-checkpoint.ts';
import { type Resolved, restoreConfig } from '../plugin/resolve.ts';
import type { Model, Params, Tokenizer } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { loadBackend } from './backend.ts';
import { describedRun } from './checkpoint-run.ts';
import { openTokenizer } from './dataset.ts';
import { locateCheckpoint } from './directory.ts';
import { type Environment, resolveOptions } from './environment.ts';
import { buildModel } from './model.ts';
import { loadWeights } from './saved-state.ts';

/** A model out of a checkpoint, ready to be evaluated or to write. */
export interface SavedModel {
  readonly resolved: Resolved;
  readonly backend: ChosenBackend;
  readonly model: Model;
  readonly params: Params;
  readonly tokenizer: Tokenizer;
  /** The checkpoint's directory and step. */
  readonly checkpoint: string;
  readonly step: number;
  close(): void;
}

export interface SavedModelOptions {
  /** A run, by path or name, or a checkpoint's directory. */
  readonly target: string;
  /** Which checkpoint of a run; default: the newest. */
  readonly which?: 'latest' | 'best';
  /** Backend instead of the configured one. */
  readonly backend?: string | undefined;
}

/**
 * Loads a model with the weights that evaluation and generation use.
 *
 * @throws LlmxError `LLMX_RUN_MISSING`, `LLMX_CHECKPOINT_MISSING`, `LLMX_CHECKPOINT_DAMAGED`, `LLMX_PARAM_MISMATCH`,
 *   `LLMX_TOKENIZER_MISMATCH`, `LLMX_BACKEND_UNAVAILABLE`, and what loading its plugins throws
 */
export async function openSavedModel(options: SavedModelOptions, environment: Environment): Promise<SavedModel> {
  const { host } = environment;
  const { checkpoint: directory } = locateCheckpoint(options.target, host.cwd, options.which);
  const checkpoint = loadCheckpoint(directory);
  const { config: stored, file, tokenizer: id } = describedRun(checkpoint);
  const resolved = await restoreConfig(stored, file, resolveOptions(environment));
  const { config, registry } = resolved;
  const tokenizer = openTokenizer(registry, id, `The checkpoint "${directory}"`);
  const parts = buildModel(registry, config, tokenizer);
  const backend = await loadBackend(resolved, host, options.backend);
  const params = loadWeights(checkpoint, parts);
  return {
    resolved,
    backend,
    model: parts.model,
    params,
    tokenizer,
    checkpoint: directory,
    step: checkpoint.state.step,
    close: () => tf.dispose(params),
  };
}
