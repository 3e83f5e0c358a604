import fs from 'node:fs';
import path from 'node:path';

import { ioError } from '../errors/index.ts';
import { syncDirectory } from './durable-file.ts';
import { findCheckpoint, listSteps, type Which } from './layout.ts';
import { type Checkpoint, loadCheckpoint } from './load-checkpoint.ts';
import { type CheckpointContent, recover, type Retention } from './write-checkpoint.ts';
import { WriterThread } from './writer-thread.ts';

export interface StoreOptions {
  /** Id of this process. */
  readonly pid: number;
  readonly retention: Retention;
}

/** The checkpoints of a run that this process owns (it holds the run's lock). One is written at a time, by a thread. */
export class CheckpointStore {
  readonly directory: string;
  readonly #options: StoreOptions;
  readonly #thread = new WriterThread();
  /** Ends with the write in flight; never rejects. */
  #inFlight: Promise<void> = Promise.resolve();
  /** Why the last write failed, until `save` or `flush` has thrown it. */
  #failure: { readonly error: unknown } | undefined;

  private constructor(directory: string, options: StoreOptions) {
    this.directory = directory;
    this.#options = options;
  }

  /**
   * Creates the folder, or clears away what an interrupted process left in it.
   *
   * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
   */
  static open(directory: string, options: StoreOptions): CheckpointStore {
    try {
      fs.mkdirSync(directory, { recursive: true });
      syncDirectory(path.dirname(directory));
      recover(directory);
    } catch (cause) {
      throw ioError(cause, directory, 'create');
    }
    return new CheckpointStore(directory, options);
  }

  /** Steps that have a checkpoint, ascending. */
  steps(): number[] {
    return listSteps(this.directory);
  }

  /**
   * @throws LlmxError `LLMX_CHECKPOINT_MISSING`, `LLMX_CHECKPOINT_DAMAGED`
   */
  load(which: Which): Checkpoint {
    return loadCheckpoint(findCheckpoint(this.directory, which));
  }

  /**
   * Saves what `copy` returns: waits for the write before, calls `copy`, hands its arrays to the thread (*consumes*
   * them) and returns. `written` resolves to the checkpoint's folder when it is complete on disk, or rejects; nobody
   * has to listen.
   *
   * @throws what the write before failed with, e.g. LlmxError `LLMX_DISK_FULL`; then nothing is copied or saved
   */
  async save(copy: () => CheckpointContent): Promise<{ readonly written: Promise<string> }> {
    await this.flush();
    const written = this.#thread.write({ ...this.#options, directory: this.directory, content: copy() });
    this.#inFlight = written.then(
      () => undefined,
      (error: unknown) => void (this.#failure = { error }),
    );
    return { written };
  }

  /**
   * Waits until nothing is being written.
   *
   * @throws what the last write failed with, e.g. LlmxError `LLMX_DISK_FULL`, unless `save` has thrown it already
   */
  async flush(): Promise<void> {
    await this.#inFlight;
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
  }

  /** `flush`, then ends the thread. */
  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#thread.stop();
    }
  }
}
