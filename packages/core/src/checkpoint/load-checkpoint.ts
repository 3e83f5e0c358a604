import fs from 'node:fs';
import path from 'node:path';

import { foreignReason } from '../data/files.ts';
import { ioError, LlmxError } from '../errors/index.ts';
import { digestFile, type FileDigest } from './durable-file.ts';
import { CHECKPOINTS, listSteps, STATE_FILE, stepName, stepOf, TENSOR_FILES, type TensorGroup } from './layout.ts';
import { damaged } from './safetensors-header.ts';
import { type HostTensors, readSafetensors } from './safetensors.ts';
import { type CheckpointState, readState } from './state-file.ts';

/** A checkpoint in memory. */
export interface Checkpoint extends Readonly<Record<TensorGroup, HostTensors>> {
  readonly directory: string;
  readonly state: CheckpointState;
}

function checkFile(file: string, expected: FileDigest | undefined): void {
  if (expected === undefined) throw damaged(file, `${STATE_FILE} does not list it`);
  const foreign = foreignReason(file);
  if (foreign !== undefined) throw damaged(file, foreign);
  const bytes = fs.statSync(file, { throwIfNoEntry: false })?.size;
  if (bytes === undefined) throw damaged(file, 'it is missing');
  if (bytes !== expected.bytes) throw damaged(file, `it has ${bytes} bytes instead of ${expected.bytes}`);
  if (digestFile(file).sha256 !== expected.sha256) throw damaged(file, 'its content does not match its sha256');
}

/**
 * Checks every byte of a checkpoint against its hashes, in constant memory; returns its state.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`
 */
export function verifyCheckpoint(directory: string): CheckpointState {
  const stateFile = path.join(directory, STATE_FILE);
  const state = readState(stateFile);
  const step = stepOf(path.basename(directory));
  if (step !== undefined && step !== state.step) throw damaged(stateFile, `it is of step ${state.step}`);
  for (const name of Object.values(TENSOR_FILES)) checkFile(path.join(directory, name), state.files[name]);
  return state;
}

function isIntact(directory: string): boolean {
  try {
    verifyCheckpoint(directory);
    return true;
  } catch {
    return false;
  }
}

const quoted = (directories: readonly string[]): string => directories.map((each) => `"${each}"`).join(', ');

/** What to do about a damaged checkpoint, given those beside it. */
function wayOut(directory: string): string {
  const folder = path.dirname(directory);
  if (path.basename(folder) !== CHECKPOINTS) return 'Copy the checkpoint again from where it came from.';
  const all = listSteps(folder).map((step) => path.join(folder, stepName(step)));
  const good = all.findLast((other) => other !== directory && isIntact(other));
  if (good === undefined) return `No checkpoint beside it is good: delete ${quoted(all)} and start over with --resume.`;
  const newer = all.slice(all.indexOf(good) + 1); // damaged, all of them; a run continues from its newest one
  const orDelete = newer.length > 0 ? `, or delete ${quoted(newer)} and continue with --resume` : '';
  return `The newest good checkpoint is "${good}": name that one${orDelete}.`;
}

/**
 * Reads a checkpoint's folder, wherever it lies. Nothing is used before everything is verified.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED` naming the file, with the newest good checkpoint of the run in its hint
 */
export function loadCheckpoint(directory: string): Checkpoint {
  try {
    const state = verifyCheckpoint(directory);
    const load = (group: TensorGroup) => readSafetensors(path.join(directory, TENSOR_FILES[group])).tensors;
    return { directory, state, model: load('model'), optimizer: load('optimizer'), plugins: load('plugins') };
  } catch (error) {
    if (!LlmxError.is(error) || error.code !== 'LLMX_CHECKPOINT_DAMAGED') throw ioError(error, directory, 'read');
    throw new LlmxError(error.code, error.message, { hint: wayOut(path.resolve(directory)), cause: error.cause });
  }
}
