import { z } from 'zod';

import type { Checkpoint } from '../checkpoint/load-checkpoint.ts';
import { downloadTree, uploadParams, uploadTree } from '../checkpoint/state-tree.ts';
import type { CheckpointContent } from '../checkpoint/write-checkpoint.ts';
import { configDifferences } from '../config/resumable.ts';
import { LlmxError } from '../errors/index.ts';
import type { ActivePlugin } from '../plugin/loader.ts';
import type { StepInfo } from '../plugin/plugin-types.ts';
import type { Optimizer, Params, StateTree } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { FRESH_GUARD, guardStateSchema } from '../train/guard.ts';
import type { LoopPosition } from '../train/loop.ts';
import { allParams, type Recipe, tensorsOf, type TrainState } from '../train/step.ts';
import { type CheckpointRun, describedRun } from './checkpoint-run.ts';
import { parted } from './frozen.ts';
import { type InitialWeights, startingFrom } from './initial-weights.ts';
import { checkParams, initialParams, type ModelParts } from './model.ts';
import type { Session } from './session.ts';

const recordSchema = z.strictObject({
  /** Optimizer steps done. */
  step: z.int(),
  /** Whether the evaluation that is due after this step, if any, is done. */
  evaluated: z.boolean(),
  guard: guardStateSchema.default(FRESH_GUARD),
  /** Loss of the step, as the objective defines it. */
  trainLoss: z.number().nullable(),
  /** Evaluation loss after this step, nats per token. */
  valLoss: z.number().nullable(),
  /** The best evaluation loss that a checkpoint was saved with, this one included. */
  bestLoss: z.number().nullable(),
});
/** What the training loop remembers in a checkpoint. */
export type CheckpointRecord = z.infer<typeof recordSchema>;

/** Weights to evaluate, sample and export, and how to give them back. */
export function evaluationWeights(optimizer: Optimizer, trained: TrainState): { weights: Params; release(): void } {
  const { evalParams } = optimizer;
  const { params, frozen, optimizer: state } = trained;
  if (evalParams === undefined) return { weights: allParams(trained), release: () => undefined };
  const evaluated = tf.tidy(() => evalParams.call(optimizer, params, state) as tf.NamedTensorMap) as Params;
  const weights = allParams({ frozen, params: evaluated });
  const borrowed = new Set(tensorsOf(trained));
  const release = () => Object.values(weights).forEach((weight) => borrowed.has(weight) || weight.dispose());
  return { weights, release };
}

/** Copies everything that a checkpoint holds to the host. */
export function checkpointContent(
  { resolved, recipe, dataset }: Session,
  info: StepInfo,
  { state }: LoopPosition,
  { record, best }: { record: CheckpointRecord; best: boolean },
): CheckpointContent {
  const { config, file, plugins } = resolved;
  const { weights, release } = evaluationWeights(recipe.optimizer, state);
  const differs = Object.entries(state.params).some(([path, weight]) => weight !== weights[path]);
  const run: CheckpointRun = { config: { ...config }, file, tokenizer: dataset.info.tokenizer };
  try {
    return {
      model: downloadTree(weights),
      optimizer: downloadTree({ state: state.optimizer, ...(differs && { iterate: state.params }) }),
      plugins: downloadTree(pluginStates(plugins)),
      facts: {
        step: info.step,
        tokensSeen: info.tokensSeen,
        best,
        optimizer: config.optimizer,
        plugins: plugins.map(({ name, version }) => ({ name, version })),
        record,
        run,
      },
    };
  } finally {
    release();
  }
}

const pluginStates = (plugins: readonly ActivePlugin[]): Record<string, StateTree> =>
  Object.fromEntries(
    plugins.flatMap(({ name, instance }) => (instance.saveState === undefined ? [] : [[name, instance.saveState()]])),
  );

/** The state before the first step; *consumes* the weights that the run starts from, if any. */
export function freshState({ recipe, isFrozen }: Session, weights?: InitialWeights): TrainState {
  return tf.tidy(() => {
    const initial = initialParams(recipe, recipe.seed);
    return beginning(recipe, parted(weights === undefined ? initial : startingFrom(weights, initial), isFrozen));
  });
}

/** A state with an optimizer that remembers nothing. */
const beginning = ({ optimizer }: Recipe, { params, frozen }: ReturnType<typeof parted>) => ({
  params,
  frozen,
  optimizer: optimizer.init(params),
});

/**
 * The position that a checkpoint holds; gives the plugins their states back.
 *
 * @throws LlmxError `LLMX_PARAM_MISMATCH`, `LLMX_PLUGIN_MISSING`, `LLMX_CHECKPOINT_DAMAGED`
 */
export function restorePosition(
  session: Session,
  checkpoint: Checkpoint,
): { position: LoopPosition; record: CheckpointRecord } {
  const { step } = checkpoint.state;
  const state = restoreState(session, checkpoint);
  restorePlugins(session.resolved.plugins, checkpoint);
  const record = readRecord(checkpoint);
  return { position: { state, step, evaluated: record.evaluated, guard: record.guard }, record };
}

function restoreState({ recipe, resolved, isFrozen }: Session, checkpoint: Checkpoint): TrainState {
  const weights = parted(loadWeights(checkpoint, recipe), isFrozen);
  const { freeze } = resolved.config.train;
  const before = freezeSchema.safeParse(describedRun(checkpoint).config).data?.train.freeze ?? [];
  if (configDifferences(before, freeze).length > 0) {
    // Only with --allow-changes.
    resolved.log('warn', 'train.freeze has changed: the optimizer starts anew, from the evaluated weights.');
    return tf.tidy(() => beginning(recipe, weights));
  }
  const { state = {}, iterate } = uploadTree(checkpoint.optimizer) as { state?: StateTree; iterate?: Params };
  if (iterate === undefined) return { ...weights, optimizer: state };
  checkParams({ ...weights.frozen, ...iterate }, recipe, checkpoint.directory);
  tf.dispose(weights.params);
  return { params: iterate, frozen: weights.frozen, optimizer: state };
}

const freezeSchema = z.object({ train: z.object({ freeze: z.array(z.string()).optional() }) });

/**
 * The weights of a checkpoint, checked against the model; owned by the caller.
 *
 * @throws LlmxError `LLMX_PARAM_MISMATCH`
 */
export function loadWeights(checkpoint: Checkpoint, parts: ModelParts): Params {
  const weights = uploadParams(checkpoint.model);
  checkParams(weights, parts, checkpoint.directory);
  return weights;
}

function restorePlugins(plugins: readonly ActivePlugin[], { plugins: tensors, directory }: Checkpoint): void {
  for (const [name, state] of Object.entries(uploadTree(tensors))) {
    const active = plugins.find((plugin) => plugin.name === name);
    if (active?.instance.loadState === undefined)
      throw new LlmxError(
        'LLMX_PLUGIN_MISSING',
        `The checkpoint "${directory}" holds a state of the plugin "${name}", which is not loaded.`,
        {
          hint: `Add ${name} to plugins, in the version that the checkpoint was written with.`,
        },
      );
    active.instance.loadState(state);
  }
}

function readRecord({ state, directory }: Checkpoint): CheckpointRecord {
  const { success, data } = recordSchema.safeParse(state.record);
  if (success) return data;
  throw new LlmxError(
    'LLMX_CHECKPOINT_DAMAGED',
    `The checkpoint "${directory}" has a record that this version of llmx does not know.`,
    {
      hint: 'Continue the run with the version of llmx that wrote it.',
    },
  );
}
