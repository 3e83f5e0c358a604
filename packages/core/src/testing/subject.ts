import { builtin } from '../builtin.ts';
import { Registry } from '../plugin/registry.ts';
import type { Plugin } from '../plugin/plugin-types.ts';
import type { ForwardContext, Params, Progress } from '../plugin/types.ts';
import { keyedRng, tf } from '../tensor/index.ts';
import { TEST_BACKENDS } from './backends.ts';
import { largestDifference, largestMagnitude } from './close.ts';

/** What a contract suite tests: a component of a plugin, with each of several sets of options. */
export interface Subject {
  /** The plugin that brings the component; built-in components are there besides. */
  readonly plugin?: Plugin;
  readonly name: string;
  /** Sets of options to test with; default: the component's defaults. */
  readonly options?: readonly Readonly<Record<string, unknown>>[];
  /** Backends to test on; default: all that run everywhere. */
  readonly backends?: readonly string[];
}

export const backendsOf = ({ backends = TEST_BACKENDS }: Subject): readonly string[] => backends;

/** Each set of options with a title. */
export const variants = ({ name, options = [{}] }: Subject): [string, { name: string }][] =>
  options.map((given) => [`${name} ${JSON.stringify(given)}`, { name, ...given }]);

export const registryOf = ({ plugin }: Subject): Registry =>
  new Registry(plugin === undefined || plugin.name === builtin.name ? [builtin] : [builtin, plugin]);

export const evaluation: ForwardContext = { training: false, dropout: (x) => x };

/** The first step of a run. */
export const firstStep: Progress = { step: 1, totalSteps: 10, tokensPerStep: 1024 };

/** Fixed random numbers for tests, apart from any that a component uses. */
export const testRng = keyedRng(11, 'contract');

/** Token ids in [0, vocab), int32 [batch, time]. */
export function testTokens(batch: number, time: number, vocab: number): tf.Tensor {
  return tf.tidy(() => tf.cast(testRng.uniform('tokens', [batch, time], 0, vocab), 'int32'));
}

/** Fails unless the values agree to a share of the largest magnitude. */
export function expectAgree(actual: tf.Tensor, expected: tf.Tensor, what: string, tolerance = 2e-5): void {
  const { difference } = largestDifference(actual, expected);
  const limit = tolerance * Math.max(1, largestMagnitude(expected));
  if (!(difference <= limit)) throw new Error(`${what}: off by ${difference}, allowed ${limit}.`);
}

/** Fails unless every value is a finite number. */
export function expectFinite(tensor: tf.Tensor, what: string): void {
  if (!tensor.dataSync().every((value) => Number.isFinite(value)))
    throw new Error(`${what} has values that are not finite.`);
}

/** Fails unless both hold the same parameters with the same bits. */
export function expectSameBits(actual: Params, expected: Params, what: string): void {
  const paths = Object.keys(expected);
  if (Object.keys(actual).join() !== paths.join()) throw new Error(`${what}: other parameters.`);
  for (const path of paths) {
    const [a, b] = [actual[path]!.dataSync(), expected[path]!.dataSync()];
    if (
      Buffer.compare(
        Buffer.from(a.buffer, a.byteOffset, a.byteLength),
        Buffer.from(b.buffer, b.byteOffset, b.byteLength),
      ) !== 0
    )
      throw new Error(`${what}: "${path}" has other bits.`);
  }
}

/** Fails if `run` leaves tensors behind beyond those in what it returns, which are disposed. */
export function expectNoLeak(run: () => tf.TensorContainer): void {
  tf.dispose(run()); // what is made once, like constants kept by a backend, does not count
  const before = tf.memory().numTensors;
  tf.dispose(run());
  const left = tf.memory().numTensors - before;
  if (left !== 0) throw new Error(`${left} tensors were left behind.`);
}

/** A copy of a float32 or int32 tensor with everything after position `keep` of axis 1 replaced. */
export function changedAfter(x: tf.Tensor, keep: number, other: tf.Tensor): tf.Tensor {
  const rest = x.shape[1]! - keep;
  const sizes = x.shape.map(() => -1);
  const part = (tensor: tf.Tensor, start: number, length: number) =>
    tf.slice(
      tensor,
      x.shape.map((_, axis) => (axis === 1 ? start : 0)),
      sizes.map((size, axis) => (axis === 1 ? length : size)),
    );
  return tf.concat([part(x, 0, keep), part(other, keep, rest)], 1);
}

/** Positions [start, start + length) of axis 1. */
export const positions = (x: tf.Tensor, start: number, length: number): tf.Tensor =>
  tf.slice(
    x,
    x.shape.map((_, axis) => (axis === 1 ? start : 0)),
    x.shape.map((_, axis) => (axis === 1 ? length : -1)),
  );

/** Row `index` of axis 0, kept as a batch of one. */
export const row = (x: tf.Tensor, index: number): tf.Tensor =>
  tf.slice(
    x,
    x.shape.map((_, axis) => (axis === 0 ? index : 0)),
    x.shape.map((_, axis) => (axis === 0 ? 1 : -1)),
  );
