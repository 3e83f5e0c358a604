import type { RunConfig } from '../config/schema.ts';
import type { ChosenBackend } from '../backend/index.ts';
import { requireWindows, type TrainingBatches, trainingBatches, windowCount } from '../data/index.ts';
import { LlmxError } from '../errors/index.ts';
import type { Resolved } from '../plugin/resolve.ts';
import type { TokenReader } from '../plugin/types.ts';
import type { EvaluationData } from '../train/evaluate.ts';
import type { Recipe } from '../train/step.ts';
import { loadBackend } from './backend.ts';
import { type Dataset, openConfiguredDataset } from './dataset.ts';
import type { Environment } from './environment.ts';
import { frozenBy, type IsFrozen } from './frozen.ts';
import { buildModel } from './model.ts';
import { planRun, type RunPlan } from './plan.ts';

/** A configuration brought to life: everything that is checked before a run directory is touched. */
export interface Session {
  readonly resolved: Resolved;
  readonly dataset: Dataset;
  readonly backend: ChosenBackend;
  readonly recipe: Recipe;
  readonly plan: RunPlan;
  /** Which parameters are not trained. */
  readonly isFrozen: IsFrozen;
  readonly batches: TrainingBatches;
  /** Absent where evaluation is off. */
  readonly evaluation?: EvaluationData;
  close(): void;
}

const SPLIT = 'train';

/** The batches that a configuration trains on; `reader` reads the split `train`. */
export const configuredBatches = (
  { train, data, model }: RunConfig,
  reader: TokenReader,
  dataset: Dataset,
  lookahead: number,
) =>
  trainingBatches({
    reader,
    seed: train.seed,
    batchSize: train.batchSize,
    gradAccumulation: train.gradAccumulation,
    time: model.contextLength,
    lookahead,
    packing: data.packing,
    endOfText: dataset.info.endOfText,
  });

/**
 * The evaluation data, or nothing where evaluation is off. It is off without saying so where the dataset has nothing to
 * evaluate on and the configuration does not ask for it.
 */
function evaluationData({ config, given }: Resolved, plan: RunPlan, dataset: Dataset): EvaluationData | undefined {
  const { data, model, train } = config;
  if (plan.evalEvery === 0) return undefined;
  const tokens = dataset.info.splits[data.valSplit]?.tokens ?? 0;
  if (windowCount(tokens, model.contextLength) === 0 && !given.has('train.evalEvery')) return undefined;
  if (tokens === 0)
    throw new LlmxError(
      'LLMX_DATASET_MISSING',
      `The dataset "${dataset.path}" has no split "${data.valSplit}" to evaluate on.`,
      {
        hint: 'Prepare it with --val-fraction above 0, or set train.evalEvery: 0.',
      },
    );
  requireWindows(tokens, model.contextLength, data.valSplit);
  return {
    reader: dataset.split(data.valSplit),
    tokenizer: dataset.tokenizer,
    split: data.valSplit,
    packing: data.packing,
    contextLength: model.contextLength,
    batchSize: train.batchSize,
    maxTokens: train.evalTokens,
  };
}

/**
 * Opens the data, loads the backend, builds every component and checks that they fit together.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`, `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`, `LLMX_DATASET_TOO_SMALL`,
 *   `LLMX_TOKENIZER_MISMATCH`, `LLMX_VOCAB_TOO_LARGE`, `LLMX_BACKEND_UNAVAILABLE`, `LLMX_PRECISION_UNSUPPORTED`
 */
export async function openSession(resolved: Resolved, { host }: Environment, backendName?: string): Promise<Session> {
  const { config, registry, hooks } = resolved;
  const dataset = openConfiguredDataset(registry, config.data);
  const plan = planRun(registry, config);
  const { model, objective } = buildModel(registry, config, dataset.tokenizer);
  const optimizer = registry.create('optimizer', config.optimizer, {});
  const reader = dataset.split(SPLIT);
  const batches = configuredBatches(config, reader, dataset, objective.lookahead);
  const evaluation = evaluationData(resolved, plan, dataset);
  if (evaluation === undefined && config.train.sample !== undefined)
    resolved.log('warn', 'train.sample has no effect, since there is no evaluation.');
  const backend = await loadBackend(resolved, host, backendName);
  return {
    resolved,
    dataset,
    backend,
    recipe: {
      model,
      objective,
      optimizer,
      hooks,
      seed: config.train.seed,
      length: { totalSteps: plan.totalSteps, tokensPerStep: plan.tokensPerStep },
      gradClip: config.train.gradClip,
    },
    plan: evaluation === undefined ? { ...plan, evalEvery: 0 } : plan,
    isFrozen: frozenBy(config.train.freeze, { model, objective }),
    batches,
    ...(evaluation && { evaluation }),
    close() {
      reader.close();
      evaluation?.reader.close();
    },
  };
}
