import path from 'node:path';

import { LlmxError } from '../errors/index.ts';
import { resolveConfig, type Resolved, restoreConfig } from '../plugin/resolve.ts';
import type { Tokenizer } from '../plugin/types.ts';
import { refuseRelative } from './checkpoint-run.ts';
import { openConfiguredDataset } from './dataset.ts';
import { locateRun } from './directory.ts';
import { type Environment, resolveOptions } from './environment.ts';
import { readManifest } from './manifest.ts';
import { buildModel } from './model.ts';
import { planRun } from './plan.ts';
import { checkDataset } from './run-facts.ts';
import { configuredBatches } from './session.ts';

/** One sequence of a training step. */
export interface InspectedSequence {
  /** Micro-batch of the step and row in it, from 0. */
  readonly micro: number;
  readonly row: number;
  /** Number of the window in the split: it holds the tokens from window * contextLength on. */
  readonly window: number;
  readonly tokens: readonly number[];
  /** Next-token labels; -1 is ignored. */
  readonly labels: readonly number[];
  /** The tokens decoded, with `<|endoftext|>` for the end of a document. */
  readonly text: string;
}

export interface InspectedStep {
  readonly step: number;
  readonly dataset: string;
  readonly contextLength: number;
  readonly sequences: readonly InspectedSequence[];
}

export interface InspectOptions {
  /** A run whose step is inspected, by path or name ... */
  readonly run?: string | undefined;
  /** ... or a configuration. */
  readonly file?: string | undefined;
  readonly sets?: readonly string[];
  /** Number of the step, from 1. */
  readonly step: number;
}

async function resolveInspected({ run, file, sets = [] }: InspectOptions, environment: Environment): Promise<Resolved> {
  const options = resolveOptions(environment);
  if (run === undefined) return resolveConfig({ ...options, file, sets });
  const directory = locateRun(run, environment.host.cwd);
  const manifest = readManifest(directory);
  // Plugins resolve from the folder above runs/<name>: what lies in a run is data.
  const place = path.resolve(directory, '..', '..', 'llmx.config.yaml');
  refuseRelative(manifest.config, place, { code: 'LLMX_RUN_DAMAGED', where: `The run "${directory}"` });
  const resolved = await restoreConfig(manifest.config, place, options);
  checkDataset(manifest, openConfiguredDataset(resolved.registry, resolved.config.data));
  return resolved;
}

function readable(tokens: readonly number[], tokenizer: Tokenizer): string {
  const documents: number[][] = [[]];
  for (const id of tokens)
    if (id === tokenizer.endOfText) documents.push([]);
    else documents.at(-1)?.push(id);
  return documents.map((ids) => new TextDecoder().decode(tokenizer.decode(ids))).join('<|endoftext|>');
}

/**
 * Exactly the batch that a step trains on, as data order and windows decide it. Plugins' `batch` hooks are not run.
 *
 * @throws LlmxError `LLMX_USAGE` for a step the run does not have; what resolving the configuration or opening the
 *   dataset throws; `LLMX_RESUME_MISMATCH` where the run's dataset has been replaced
 */
export async function inspectStep(options: InspectOptions, environment: Environment): Promise<InspectedStep> {
  const { step } = options;
  const { config, registry } = await resolveInspected(options, environment);
  const { totalSteps } = planRun(registry, config);
  if (step < 1 || step > totalSteps)
    throw new LlmxError('LLMX_USAGE', `There is no step ${step}: the run has steps 1 to ${totalSteps}.`, {
      hint: `Give --step a number from 1 to ${totalSteps}.`,
    });
  const dataset = openConfiguredDataset(registry, config.data);
  const { objective } = buildModel(registry, config, dataset.tokenizer);
  const reader = dataset.split('train');
  try {
    const batches = configuredBatches(config, reader, dataset, objective.lookahead);
    const micros = Array.from({ length: config.train.gradAccumulation }, (_, micro) => batches.micro(step, micro));
    const sequences = micros.flatMap(({ batch, windows }, micro) =>
      windows.map((window, row): InspectedSequence => {
        const [start, end] = [row * batch.time, (row + 1) * batch.time];
        const tokens = [...batch.tokens.subarray(start, end)];
        const labels = Array.from(
          { length: batch.time },
          (_, place) => batch.labels[(start + place) * batch.lookahead]!,
        );
        return { micro, row, window, tokens, labels, text: readable(tokens, dataset.tokenizer) };
      }),
    );
    return { step, dataset: dataset.path, contextLength: config.model.contextLength, sequences };
  } finally {
    reader.close();
  }
}
