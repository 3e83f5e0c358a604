import { Worker } from 'node:worker_threads';

import { assert, LlmxError } from '../errors/index.ts';
import type { HostTensor } from './safetensors.ts';
import type { CheckpointContent, CheckpointJob } from './write-checkpoint.ts';
import type { Outcome } from './writer-worker.ts';

// Threads run built files; from a source file the build beside it is used.
const WORKER_URL = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/checkpoint/writer-worker.js', import.meta.url)
  : new URL('./writer-worker.js', import.meta.url);

interface Pending {
  resolve(directory: string): void;
  reject(error: unknown): void;
}

/** The arrays' memory, each piece once; it moves to the thread instead of being copied again. */
function memoryOf({ model, optimizer, plugins }: CheckpointContent): ArrayBuffer[] {
  const tensors: HostTensor[] = [model, optimizer, plugins].flatMap((group) => [...group.values()]);
  return [...new Set(tensors.map(({ data }) => data.buffer).filter((buffer) => buffer instanceof ArrayBuffer))];
}

function failure({ message, code, hint, cause }: Exclude<Outcome, { directory: string }>): Error {
  return code === undefined ? new Error(message, { cause }) : new LlmxError(code, message, { hint });
}

/** Runs `writeCheckpoint` in a thread: started by the first job, kept for the next ones, one job at a time. */
export class WriterThread {
  #worker: Worker | undefined;
  #pending: Pending | undefined;

  /** Writes a checkpoint, *consuming* its arrays; resolves to its folder. The job before must have ended. */
  write(job: CheckpointJob): Promise<string> {
    assert(this.#pending === undefined, 'A checkpoint is being written already.');
    const worker = (this.#worker ??= this.#start());
    return new Promise((resolve, reject) => {
      worker.postMessage(job, memoryOf(job.content));
      worker.ref();
      this.#pending = { resolve, reject };
    });
  }

  async stop(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(WORKER_URL, { execArgv: [] }); // options of the main program, e.g. --eval, are not for files
    worker.unref(); // an idle thread does not keep the program running
    const settle = (result: (pending: Pending) => void): void => {
      const pending = this.#pending;
      this.#pending = undefined;
      worker.unref();
      if (pending !== undefined) result(pending);
    };
    const stopped = (cause: unknown): void => {
      if (this.#worker !== worker) return; // told already, or asked to stop
      this.#worker = undefined;
      const error = new Error(`The thread that writes checkpoints stopped: ${String(cause)}`, { cause });
      settle(({ reject }) => reject(error));
    };
    worker.on('message', (outcome: Outcome) =>
      settle(({ resolve, reject }) => ('directory' in outcome ? resolve(outcome.directory) : reject(failure(outcome)))),
    );
    worker.on('error', stopped);
    worker.on('exit', (code) => stopped(`it ended with code ${code}`));
    return worker;
  }
}
