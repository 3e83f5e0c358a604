/** The thread that writes checkpoints, so that training goes on meanwhile. It answers every job with its outcome. */
import { parentPort } from 'node:worker_threads';

import { type ErrorCode, LlmxError } from '../errors/index.ts';
import { type CheckpointJob, writeCheckpoint } from './write-checkpoint.ts';

/** Errors lose their class and their code on the way between threads; these parts survive. */
export type Outcome =
  | { readonly directory: string }
  | {
      readonly message: string;
      readonly code?: ErrorCode;
      readonly hint?: string | undefined;
      readonly cause?: unknown;
    };

function run(job: CheckpointJob): Outcome {
  try {
    return { directory: writeCheckpoint(job) };
  } catch (error) {
    if (LlmxError.is(error)) return { message: error.message, code: error.code, hint: error.hint };
    return { message: String(error), cause: error };
  }
}

parentPort?.on('message', (job: CheckpointJob) => parentPort?.postMessage(run(job)));
