import fs from 'node:fs';
import path from 'node:path';

import { ioError, LlmxError } from '../errors/index.ts';
import { encodeState } from './encode-state.ts';
import { discard, PARTIAL, removePartial, replaceFile, syncDirectory, writeSynced } from './durable-file.ts';
import {
  BEST,
  bestStep,
  LATEST,
  listSteps,
  readPointer,
  REPLACED,
  STATE_FILE,
  stepName,
  TENSOR_FILES,
  type TensorGroup,
} from './layout.ts';
import { verifyCheckpoint } from './load-checkpoint.ts';
import { type HostTensors, writeSafetensors } from './safetensors.ts';
import { type CheckpointFacts, readState } from './state-file.ts';

/** Which checkpoints stay; the best one always does. */
export interface Retention {
  /** Number of newest checkpoints that stay, at least 1. */
  readonly keepLast: number;
  /** Checkpoints of steps that are multiples of this stay; 0: none. */
  readonly keepEvery: number;
}

/** All that a checkpoint holds. */
export interface CheckpointContent extends Readonly<Record<TensorGroup, HostTensors>> {
  readonly facts: CheckpointFacts;
}

export interface CheckpointJob {
  /** The run's folder of checkpoints. */
  readonly directory: string;
  /** Id of the writing process; part of the names of incomplete folders. */
  readonly pid: number;
  readonly content: CheckpointContent;
  readonly retention: Retention;
}

/** Whether a checkpoint says that it is the best; `false` if its state cannot be read, which loading will tell. */
function saysBest(folder: string): boolean {
  try {
    return readState(path.join(folder, STATE_FILE)).best;
  } catch {
    return false;
  }
}

function point(directory: string, pointer: string, name: string): void {
  if (readPointer(directory, pointer) !== name) replaceFile(path.join(directory, pointer), `${name}\n`);
}

/** Makes `latest`, and `best` where that applies, name the newest checkpoint. */
function pointToNewest(directory: string): void {
  const newest = listSteps(directory).at(-1);
  if (newest === undefined) return;
  const name = stepName(newest);
  point(directory, LATEST, name);
  if (saysBest(path.join(directory, name))) point(directory, BEST, name);
}

/** Brings a folder of checkpoints into order after an interruption; only the run's owner may call this. */
export function recover(directory: string): void {
  listSteps(directory); // first of all, whether it is a folder of a run's own
  removePartial(directory);
  for (const name of fs.readdirSync(directory)) {
    if (!name.startsWith(REPLACED)) continue;
    const [replaced, original] = [path.join(directory, name), path.join(directory, name.slice(REPLACED.length))];
    if (fs.existsSync(original)) fs.rmSync(replaced, { recursive: true });
    else fs.renameSync(replaced, original);
  }
  syncDirectory(directory);
  pointToNewest(directory);
}

/** Headers and state.json, generously. */
const BESIDE_TENSORS_BYTES = 1 << 20;
const MIB = 2 ** 20;

/** Refuses a checkpoint that would not fit beside the old ones, which stay until it is complete. */
function checkRoom(directory: string, { model, optimizer, plugins }: CheckpointContent): void {
  const { bavail, bsize, blocks } = fs.statfsSync(directory);
  if (blocks === 0) return; // a file system that does not say
  const needed = [model, optimizer, plugins]
    .flatMap((group) => [...group.values()])
    .reduce((sum, { data }) => sum + data.byteLength, BESIDE_TENSORS_BYTES);
  if (bavail * bsize >= needed) return;
  const [wants, has] = [Math.ceil(needed / MIB), Math.floor((bavail * bsize) / MIB)];
  throw new LlmxError(
    'LLMX_DISK_FULL',
    `A checkpoint needs ${wants} MiB, the disk of "${directory}" has ${has} left.`,
    {
      hint: 'Free some space, or lower train.keepLast, and continue with --resume.',
    },
  );
}

/** Reads a checkpoint back before anything relies on it. */
function checkWritten(folder: string): void {
  try {
    verifyCheckpoint(folder);
  } catch (cause) {
    if (!LlmxError.is(cause) || cause.code !== 'LLMX_CHECKPOINT_DAMAGED') throw cause;
    throw new LlmxError('LLMX_IO_FAILED', `A checkpoint does not read back as it was written: ${cause.message}`, {
      hint: 'The older checkpoints are still there. Check the disk, then continue with --resume.',
      cause,
    });
  }
}

/** Fills a folder; every file in it and the folder itself are on disk afterwards. */
function fill(folder: string, { facts, ...content }: CheckpointContent): void {
  fs.mkdirSync(folder);
  const groups = Object.entries(TENSOR_FILES) as [TensorGroup, string][];
  const files = groups.map(
    ([group, name]) => [name, writeSafetensors(path.join(folder, name), content[group])] as const,
  );
  const state = { format: 'llmx-checkpoint', version: 1, ...facts, files: Object.fromEntries(files) };
  writeSynced(path.join(folder, STATE_FILE), [encodeState(state)]);
  syncDirectory(folder);
}

/** Gives a filled folder its name. At every moment a complete checkpoint of the step is there or can be recovered. */
function publish(partial: string, directory: string, name: string): void {
  const target = path.join(directory, name);
  const replaced = path.join(directory, `${REPLACED}${name}`);
  if (fs.existsSync(target)) fs.renameSync(target, replaced);
  fs.renameSync(partial, target);
  syncDirectory(directory);
  fs.rmSync(replaced, { recursive: true, force: true });
}

/** Deletes a checkpoint; one that is half deleted no longer has a checkpoint's name. */
function remove(directory: string, name: string): void {
  const doomed = path.join(directory, `${PARTIAL}deleted-${name}`);
  fs.renameSync(path.join(directory, name), doomed);
  syncDirectory(directory);
  fs.rmSync(doomed, { recursive: true });
}

function deleteOld(directory: string, { keepLast, keepEvery }: Retention): void {
  const best = bestStep(directory);
  for (const step of listSteps(directory).slice(0, -Math.max(1, keepLast))) {
    const kept = step === best || (keepEvery > 0 && step % keepEvery === 0);
    if (!kept) remove(directory, stepName(step));
  }
}

/**
 * Writes one checkpoint: into a folder of another name, synced, read back, renamed; then `latest`, `best` and the removal of old
 * ones. Killed at any moment, it leaves the newest complete checkpoint loadable.
 *
 * @returns the checkpoint's folder
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function writeCheckpoint({ directory, pid, content, retention }: CheckpointJob): string {
  const name = stepName(content.facts.step);
  const partial = path.join(directory, `${PARTIAL}${name}-${pid}`);
  try {
    recover(directory); // a thread that crashed may have left something, too
    checkRoom(directory, content);
    fill(partial, content);
    checkWritten(partial);
    publish(partial, directory, name);
    pointToNewest(directory);
    deleteOld(directory, retention);
  } catch (cause) {
    discard(partial);
    throw ioError(cause, path.join(directory, name), 'write');
  }
  return path.join(directory, name);
}
