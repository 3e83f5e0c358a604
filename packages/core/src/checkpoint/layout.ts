/** Names inside a run's folder of checkpoints. */
import fs from 'node:fs';
import path from 'node:path';

import { foreignReason } from '../data/files.ts';
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

/**
 * Fails where something in a run's directory is not its own, but a link to what may belong to anybody.
 *
 * @throws LlmxError `LLMX_RUN_DAMAGED`
 */
export function refuseForeign(target: string, kind: 'file' | 'folder'): void {
  const reason = foreignReason(target, kind);
  if (reason === undefined) return;
  throw new LlmxError('LLMX_RUN_DAMAGED', `"${target}" is not part of its run: ${reason}.`, {
    hint: `Put the ${kind} itself there. To have a run elsewhere, make its whole directory the link.`,
  });
}

/**
 * Steps that have a checkpoint in `directory`, ascending; none where the folder does not exist.
 *
 * @throws LlmxError `LLMX_RUN_DAMAGED` where the folder or a checkpoint is a link
 */
export function listSteps(directory: string): number[] {
  refuseForeign(directory, 'folder');
  if (!fs.existsSync(directory)) return [];
  const names = fs.readdirSync(directory).filter((name) => stepOf(name) !== undefined);
  for (const name of names) refuseForeign(path.join(directory, name), 'folder');
  return names.map((name) => stepOf(name)!).toSorted((a, b) => a - b);
}

/**
 * What `latest` or `best` says; `undefined` where there is none.
 *
 * @throws LlmxError `LLMX_RUN_DAMAGED` where it is a link
 */
export function readPointer(directory: string, pointer: string): string | undefined {
  const file = path.join(directory, pointer);
  refuseForeign(file, 'file');
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim() : undefined;
}

/** The step that `best` names, if the file exists and names a checkpoint. */
export const bestStep = (directory: string): number | undefined => stepOf(readPointer(directory, BEST) ?? '');

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
