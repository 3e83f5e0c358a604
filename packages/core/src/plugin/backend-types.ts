/** The contract of backends: how tensors are computed, and what a backend says of the machine. */

export type Precision = 'fp32' | 'bf16';

/** A way to run tensors: a TensorFlow.js backend and how to load it. */
export interface Backend {
  /** Name under which TensorFlow.js knows it after `load`. */
  readonly tfjsName: string;
  readonly precisions: readonly Precision[];
  /**
   * Loads and registers the backend; returns one line about it (version, instruction set, device).
   *
   * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE` with the reason and what to install
   */
  load(): Promise<string>;
  /** What is worth knowing about the loaded backend on this machine, for `llmx doctor`, in the order to show it in. */
  facts?(): readonly BackendFact[];
  /**
   * Measures what the machine can do at best with the loaded backend's threads and instructions, for `llmx profile` to
   * compare kernels with; takes well under a second. Absent: measured with one thread of JavaScript and WebAssembly.
   */
  peaks?(): MachinePeaks;
  /** Kernels of the loaded backend that are its own machine code; absent where that tells nothing. */
  nativeKernels?(): readonly string[];
}

/** A line about a backend, e.g. `threads` and `2`. */
export interface BackendFact {
  readonly name: string;
  readonly value: string;
}

/** What a machine can do at best, measured. */
export interface MachinePeaks {
  /** 10^9 float32 operations per second; a multiply-add counts two. */
  readonly gflops: number;
  /** 10^9 bytes per second read and written while streaming through memory that no cache holds. */
  readonly gigabytesPerSecond: number;
  /** Threads that took part. */
  readonly threads: number;
}
