import path from 'node:path';

import { BEST, CHECKPOINTS, LATEST, listSteps, readPointer, stepName, stepOf } from '../checkpoint/layout.ts';
import { verifyCheckpoint } from '../checkpoint/load-checkpoint.ts';
import { nextTurn } from '../data/files.ts';
import { verifyDataset } from '../data/index.ts';
import { LlmxError, LlmxProblems } from '../errors/index.ts';
import { locateRun } from './directory.ts';
import type { Environment } from './environment.ts';
import { type Manifest, readManifest } from './manifest.ts';
import { readMetrics } from './metrics-log.ts';

export interface VerifyOptions {
  /** A run, by path or name. */
  readonly run: string;
  /** Reads the whole dataset, too; it must be one of `llmx data prepare`. */
  readonly data?: boolean;
  /** What is read now, e.g. `step-00000100`. */
  readonly onProgress?: (what: string) => void;
}

/** A run all of whose files are what llmx wrote. */
export interface VerifiedRun {
  readonly runDir: string;
  /** Steps of its checkpoints. */
  readonly checkpoints: readonly number[];
  /** Bytes of the checkpoints' files that were compared with their hashes. */
  readonly bytes: number;
  /** Lines of metrics. */
  readonly records: number;
  /** Folder of the dataset, if that was read. */
  readonly dataset: string | null;
}

/** A pointer names a checkpoint that is there; a run without checkpoints has none. */
function checkPointer(folder: string, pointer: string, steps: readonly number[]): void {
  const file = path.join(folder, pointer);
  const name = readPointer(folder, pointer);
  if (name === undefined) return;
  const step = stepOf(name);
  if (step !== undefined && steps.includes(step)) return;
  throw new LlmxError('LLMX_RUN_DAMAGED', `"${file}" names ${JSON.stringify(name)}, which is no checkpoint there.`, {
    hint: `Write the name of a checkpoint into "${file}", or delete it.`,
  });
}

async function checkData({ datasets: [dataset] }: Manifest, signal: AbortSignal): Promise<string | null> {
  if (dataset === undefined) return null;
  const { fingerprint } = await verifyDataset(dataset.path, signal);
  if (fingerprint === dataset.fingerprint) return dataset.path;
  throw new LlmxError(
    'LLMX_RESUME_MISMATCH',
    `The dataset "${dataset.path}" is not the one that the run was started with.`,
    { hint: 'Prepare it again as it was, or put it back; its fingerprint in run.json tells which it is.' },
  );
}

const checkpointBytes = (state: ReturnType<typeof verifyCheckpoint>): number =>
  Object.values(state.files).reduce((sum, { bytes }) => sum + bytes, 0);

/**
 * Compares every file of a run with its hash: all checkpoints, the description, the metrics, and the dataset on request.
 *
 * @throws LlmxError naming every damaged file at once: `LLMX_CHECKPOINT_DAMAGED`, `LLMX_RUN_DAMAGED`,
 *   `LLMX_DATASET_DAMAGED`; `LLMX_RUN_MISSING`, `LLMX_INTERRUPTED`
 */
export async function verifyRun(options: VerifyOptions, { host }: Pick<Environment, 'host'>): Promise<VerifiedRun> {
  const runDir = locateRun(options.run, host.cwd);
  const folder = path.join(runDir, CHECKPOINTS);
  const problems: LlmxError[] = [];
  async function check<T>(what: string, body: () => T | Promise<T>): Promise<T | undefined> {
    if (host.signal.aborted)
      throw new LlmxError('LLMX_INTERRUPTED', `Verification was stopped by ${String(host.signal.reason)}.`);
    options.onProgress?.(what);
    await nextTurn();
    try {
      return await body();
    } catch (error) {
      if (!LlmxError.is(error) || error.kind === 'interrupt') throw error;
      problems.push(error);
      return undefined;
    }
  }
  const manifest = await check('run.json', () => readManifest(runDir));
  const records = await check('metrics.jsonl', () => readMetrics(path.join(runDir, 'metrics.jsonl')).length);
  const steps = (await check('checkpoints', () => listSteps(folder))) ?? [];
  let bytes = 0;
  for (const step of steps) {
    const state = await check(stepName(step), () => verifyCheckpoint(path.join(folder, stepName(step))));
    if (state !== undefined) bytes += checkpointBytes(state);
  }
  for (const pointer of [LATEST, BEST]) await check(pointer, () => checkPointer(folder, pointer, steps));
  const dataset =
    options.data === true && manifest !== undefined
      ? await check('dataset', () => checkData(manifest, host.signal))
      : null;
  const [first, ...others] = problems;
  if (first !== undefined) throw new LlmxProblems([first, ...others]);
  return { runDir, checkpoints: steps, bytes, records: records ?? 0, dataset: dataset ?? null };
}
