/** The values that contracts speak of: parameters, states, batches, random numbers. */
import type * as tf from '@tensorflow/tfjs-core';

/**
 * Parameters or gradients keyed by dotted path, e.g. `blocks.0.attention.query`; the names a checkpoint holds. A block
 * sees its own part under local names (`attention.query`).
 */
export type Params = Readonly<Record<string, tf.Tensor>>;

/** What a checkpoint can store: tensors and numbers, nested in plain objects. Keys must not contain `/`. */
export type StateTree = tf.Tensor | number | { readonly [key: string]: StateTree };

/** Token ids as stored: 16 bits where the vocabulary fits, else 32. */
export type TokenIds = Uint16Array | Uint32Array;

/** Metric values by name, e.g. `loss`, `gradNorm`. */
export type Metrics = Readonly<Record<string, number>>;

/**
 * Keyed random numbers: a value depends on the seed, the purpose, the path and the position in the tensor alone, never
 * on the order of calls. Paths are relative to the scope.
 */
export interface Rng {
  /** Normal values, float32. */
  normal(path: string, shape: readonly number[], stddev: number, mean?: number): tf.Tensor;
  /** Uniform values in [low, high), float32. */
  uniform(path: string, shape: readonly number[], low: number, high: number): tf.Tensor;
  /** The same generator with `prefix.` before every path. */
  scope(prefix: string): Rng;
}

/** One micro-batch on the host, before it is uploaded. Row-major arrays. */
export interface HostBatch {
  readonly batch: number;
  /** Window length, in tokens: the context length. */
  readonly time: number;
  /** Labels per position: view k is the token k + 1 ahead. */
  readonly lookahead: number;
  /** Token ids, [batch, time]. */
  readonly tokens: Int32Array;
  /** Label ids, [batch, time, lookahead]; -1 is ignored. */
  readonly labels: Int32Array;
  /** Number of the document within its window, [batch, time]; absent where documents may see each other. */
  readonly segments?: Int32Array;
  /** Position within the document, [batch, time]; present with `segments`. */
  readonly positions?: Int32Array;
}

/** One micro-batch as tensors. */
export interface Batch {
  /** Token ids, int32 [batch, time]. */
  readonly tokens: tf.Tensor;
  /** Label ids, int32 [batch, time, lookahead]; -1 is ignored. */
  readonly labels: tf.Tensor;
  /** int32 [batch, time]; attention does not cross segments, recurrent state resets where they change. */
  readonly segments?: tf.Tensor;
  /** int32 [batch, time]; present with `segments`. */
  readonly positions?: tf.Tensor;
}
