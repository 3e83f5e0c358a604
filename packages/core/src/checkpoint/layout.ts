/** Names inside a run's folder of checkpoints. */
import fs from 'node:fs';
import path from 'node:path';

import { LlmxError } from '../errors/index.ts';

/** Name of the folder of checkpoints in a run's directory. */
export const CHECKPOINTS = 'checkpoints';
export const STATE_FILE = 'state.json';
/** The files of tensors in each checkpoint. */
export const TENSOR_FILES = {
  /** Weights to evaluate, sample and export. */
  model: 'model.safetensors',
  /** Optimizer state under `state/`, and the trained iterate under `iterate/` where it differs from the weights. */
  optimizer: 'optimizer.safetensors',
  /** State of each plugin under its name. */
  plugins: 'plugins.safetensors',
} as const;
export type TensorGroup = keyof typeof TENSOR_FILES;

/** Small text files, each holding the name of a checkpoint. `latest` informs people; the highest step decides. */
export const LATEST = 'latest';
export const BEST = 'best';

/** A checkpoint that is being replaced by another of the same step. */
export const REPLACED = '.replaced-';

const STEP_DIGITS = 8;
const STEP_NAME = /^step-(\d{8,15})$/;

/** `step-00001000` */
export const stepName = (step: number): string => `step-${String(step).padStart(STEP_DIGITS, '0')}`;

/** The step in a checkpoint's name, if it is one. */
export function stepOf(name: string): number | undefined {
  const digits = STEP_NAME.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Steps that have a checkpoint in `directory`, ascending; none where the folder does not exist. */
export function listSteps(directory: string): number[] {
  if (!fs.existsSync(directory)) return [];
  return fs
    .readdirSync(directory)
    .flatMap((name) => stepOf(name) ?? [])
    .toSorted((a, b) => a - b);
}

/** The step that `best` names, if the file exists and names a checkpoint. */
export function bestStep(directory: string): number | undefined {
  const file = path.join(directory, BEST);
  return fs.existsSync(file) ? stepOf(fs.readFileSync(file, 'utf8').trim()) : undefined;
}

/** Which checkpoint of a run: the newest, the one with the lowest evaluation loss, or that of a step. */
export type Which = 'latest' | 'best' | number;

/**
 * The folder of a checkpoint in a run's folder of checkpoints.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_MISSING`
 */
export function findCheckpoint(directory: string, which: Which): string {
  const steps = listSteps(directory);
  const step = which === 'latest' ? steps.at(-1) : which === 'best' ? bestStep(directory) : which;
  if (step !== undefined && steps.includes(step)) return path.join(directory, stepName(step));
  const wanted =
    typeof which === 'number' ? `checkpoint of step ${which}` : which === 'best' ? 'best checkpoint' : 'checkpoint';
  throw new LlmxError('LLMX_CHECKPOINT_MISSING', `There is no ${wanted} in "${directory}".`, {
    hint:
      steps.length > 0
        ? `There are checkpoints of steps ${steps.join(', ')}.`
        : 'Train the run until it has saved one (train.checkpointEvery, and always after the last step).',
  });
}
