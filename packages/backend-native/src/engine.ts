import type { tf } from '@llmx/core';

export type TensorInfo = tf.TensorInfo;

/** What kernels written in TypeScript need: memory, and the C++ kernels. */
export interface Engine {
  /** Whether products of matrices round their operands to bfloat16; sums are float32. */
  readonly roundsProducts: boolean;
  /**
   * A new tensor from the pool, its content unspecified.
   *
   * @throws LlmxError `LLMX_OUT_OF_MEMORY`
   */
  allocate(shape: readonly number[], dtype?: 'float32' | 'int32'): TensorInfo;
  /**
   * A new float32 tensor for a result that products of matrices read, or that is no more exact than they. Where these round to bfloat16 (`roundsProducts`) it lies
   * in memory as bfloat16, and is widened for good when anything else reads it.
   */
  allocateRounded(shape: readonly number[]): TensorInfo;
  /**
   * Runs the C++ kernel `name` on tensors, inputs first (undefined: left out), and numbers.
   *
   * @param bfloat16 positions of tensors that the kernel takes in bfloat16 too; all others are widened before
   * @throws LlmxError `LLMX_NATIVE_FAILED` with the kernel's message
   */
  run(
    name: string,
    tensors: readonly (TensorInfo | undefined)[],
    numbers?: readonly number[],
    bfloat16?: readonly number[],
  ): void;
  /** Whether no other tensor refers to this one's memory, so that a kernel may overwrite it with float32. */
  isSoleOwner(info: TensorInfo): boolean;
  /** The same memory as another result, for outputs given in place. */
  share(info: TensorInfo, shape?: readonly number[]): TensorInfo;
  /**
   * Runs a kernel of tfjs-backend-cpu on this backend. Some of those dispose a tensor and read its values afterwards, so
   * memory that is released meanwhile is given to nobody before the kernel has returned. Some give out float32 or int32
   * over memory of another type (a cast that loses nothing); such results are converted.
   */
  borrowed(kernel: (backend: tf.KernelBackend) => TensorInfo | TensorInfo[]): TensorInfo[];
}

/** A kernel as TensorFlow.js calls it: checks shapes, allocates the results, runs C++. */
export type NativeKernel = (
  engine: Engine,
  inputs: Readonly<Record<string, TensorInfo | undefined>>,
  attributes: Readonly<Record<string, unknown>>,
) => TensorInfo[];
