import fs from 'node:fs';
import path from 'node:path';

import { removePartial, syncDirectory } from '../checkpoint/durable-file.ts';
import { CHECKPOINTS, findCheckpoint, listSteps, STATE_FILE, stepOf } from '../checkpoint/layout.ts';
import { makeFolders } from '../data/index.ts';
import { ioError, LlmxError, suggestion } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import { acquireLock, type RunLock } from './lock.ts';
import { isRun, type Manifest, manifestPath, readManifest, writeManifest } from './manifest.ts';

/** Folder of all runs, below the current folder. */
const RUNS = 'runs';
const MAX_NAME_BYTES = 200;

/** A run's directory, owned by this process until `close`. */
export class RunDirectory {
  readonly path: string;
  readonly #lock: RunLock;
  readonly #isNew: boolean;
  #manifest: Manifest;

  /** `isNew`: nothing was there before the run. */
  constructor(directory: string, manifest: Manifest, { lock, isNew }: { lock: RunLock; isNew: boolean }) {
    this.path = directory;
    this.#manifest = manifest;
    this.#lock = lock;
    this.#isNew = isNew;
  }

  get manifest(): Manifest {
    return this.#manifest;
  }

  /** Folder of checkpoints; see `CheckpointStore`. */
  get checkpoints(): string {
    return path.join(this.path, CHECKPOINTS);
  }

  /** File of `MetricsLog`. */
  get metrics(): string {
    return path.join(this.path, 'metrics.jsonl');
  }

  /**
   * Replaces run.json, e.g. to add the result.
   *
   * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
   */
  update(manifest: Manifest): void {
    writeManifest(this.path, manifest);
    this.#manifest = manifest;
  }

  /** Removes the run; what was in its directory before stays. */
  discard(): void {
    const own = this.#isNew ? [this.path] : [manifestPath(this.path), this.metrics, this.checkpoints];
    for (const target of own) fs.rmSync(target, { recursive: true, force: true });
  }

  /** Gives the directory back. */
  close(): void {
    this.#lock.release();
  }
}

/**
 * The directory of the run called `name`.
 *
 * @throws LlmxError `LLMX_USAGE` for a name that is not a plain file name
 */
export function runPath(name: string, cwd: string): string {
  const plain = /^[^./\\\p{Cc}][^/\\\p{Cc}]*$/u.test(name);
  if (plain && Buffer.byteLength(name) <= MAX_NAME_BYTES) return path.join(cwd, RUNS, name);
  throw new LlmxError('LLMX_USAGE', `${JSON.stringify(name)} cannot be the name of a run.`, {
    hint: `Choose a name of 1 to ${MAX_NAME_BYTES} bytes without slashes that does not start with a dot.`,
  });
}

const existsError = (directory: string): LlmxError =>
  new LlmxError('LLMX_RUN_EXISTS', `The directory "${directory}" holds a run already.`, {
    hint: 'Continue it with --resume, choose another --name, or delete the directory.',
  });

/** The new run would take them for its own. */
function refuseCheckpoints(directory: string): void {
  if (listSteps(path.join(directory, CHECKPOINTS)).length === 0) return;
  throw new LlmxError('LLMX_RUN_EXISTS', `The directory "${directory}" holds checkpoints without their run.json.`, {
    hint: 'Choose another --name, or delete the directory.',
  });
}

/** Folders that were created for a run that did not come to be; they go if nothing else moved in. */
function removeEmpty(directory: string, outermost: string | undefined): void {
  if (outermost === undefined) return;
  try {
    const end = path.dirname(path.resolve(outermost));
    for (let folder = path.resolve(directory); folder !== end; folder = path.dirname(folder)) fs.rmdirSync(folder);
  } catch {
    // Not empty: it is somebody else's now.
  }
}

/** Takes the lock and does `body` under it; gives the lock back if that fails. */
function locked<T>(directory: string, host: Host['process'], body: (lock: RunLock) => T): T {
  const lock = acquireLock(directory, host);
  try {
    return body(lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

function makeDirectory(directory: string): string | undefined {
  try {
    return makeFolders(directory);
  } catch (cause) {
    throw ioError(cause, directory, 'create');
  }
}

/**
 * Makes `directory` the directory of a new run. It counts as one from the moment its run.json is there; what an
 * interrupted attempt left is used again, and a failed one leaves nothing.
 *
 * @throws LlmxError `LLMX_RUN_EXISTS`, `LLMX_RUN_LOCKED`, `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function createRun(directory: string, manifest: Manifest, host: Host['process']): RunDirectory {
  if (isRun(directory)) throw existsError(directory);
  const created = makeDirectory(directory);
  try {
    return locked(directory, host, (lock) => {
      if (isRun(directory)) throw existsError(directory);
      refuseCheckpoints(directory);
      removePartial(directory);
      writeManifest(directory, manifest);
      syncDirectory(path.dirname(directory));
      return new RunDirectory(directory, manifest, { lock, isNew: created !== undefined });
    });
  } catch (error) {
    removeEmpty(directory, created);
    throw error;
  }
}

/**
 * Opens the directory of a run to continue it.
 *
 * @throws LlmxError `LLMX_RUN_MISSING`, `LLMX_RUN_LOCKED`, `LLMX_RUN_DAMAGED`
 */
export function openRun(directory: string, host: Host['process']): RunDirectory {
  readManifest(directory); // before a lock is put where no run is
  return locked(directory, host, (lock) => {
    removePartial(directory);
    return new RunDirectory(directory, readManifest(directory), { lock, isNew: false });
  });
}

/** Names of the runs below the current folder, sorted. */
export function listRuns(cwd: string): string[] {
  const folder = path.join(cwd, RUNS);
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .filter((name) => isRun(path.join(folder, name)))
    .toSorted();
}

const missing = (target: string, what: string, cwd: string): LlmxError =>
  new LlmxError('LLMX_RUN_MISSING', `There is no ${what} "${target}".`, {
    hint: `Give its path, or the name of a run in "${path.join(cwd, RUNS)}". ${suggestion(path.basename(target), listRuns(cwd))}`,
  });

function findRun(target: string, cwd: string): string | undefined {
  return [path.resolve(cwd, target), path.resolve(cwd, RUNS, target)].find(isRun);
}

/**
 * The directory of the run that a user names, by path or by name.
 *
 * @throws LlmxError `LLMX_RUN_MISSING`
 */
export function locateRun(target: string, cwd: string): string {
  const run = findRun(target, cwd);
  if (run === undefined) throw missing(target, 'run', cwd);
  return run;
}

/** Where a checkpoint lies. */
export interface Located {
  readonly checkpoint: string;
  /** Directory of the run that it belongs to; absent for a checkpoint that was copied elsewhere. */
  readonly run?: string;
}

/**
 * The checkpoint that a user names: by the path of a checkpoint, or as the newest or best one of a run, given by path
 * or name.
 *
 * @throws LlmxError `LLMX_RUN_MISSING`, `LLMX_CHECKPOINT_MISSING`
 */
export function locateCheckpoint(target: string, cwd: string, which: 'latest' | 'best' = 'latest'): Located {
  const run = findRun(target, cwd);
  if (run !== undefined) return { run, checkpoint: findCheckpoint(path.join(run, CHECKPOINTS), which) };
  const checkpoint = path.resolve(cwd, target);
  // A folder with a checkpoint's name is one even if its state is gone: loading it says what is wrong.
  const named = stepOf(path.basename(checkpoint)) !== undefined && fs.existsSync(checkpoint);
  if (!named && !fs.existsSync(path.join(checkpoint, STATE_FILE))) throw missing(target, 'run or checkpoint', cwd);
  const parent = path.dirname(path.dirname(checkpoint));
  return isRun(parent) ? { run: parent, checkpoint } : { checkpoint };
}
