import '@tensorflow/tfjs-backend-cpu';

import { beforeAll, expect, test } from 'vitest';

import type { StateTree } from '../plugin/types.ts';
import { stateTensors } from '../tensor/params.ts';
import { tf } from '../tensor/tf.ts';
import { downloadTree, uploadParams, uploadTree } from './state-tree.ts';

beforeAll(async () => {
  await tf.setBackend('cpu');
});

/** A tree with its tensors as plain values. */
const plain = (tree: StateTree): unknown => {
  if (typeof tree === 'number') return tree;
  if (tree instanceof tf.Tensor) return { dtype: tree.dtype, shape: tree.shape, values: [...tree.dataSync()] };
  return Object.fromEntries(
    Object.entries(tree as Record<string, StateTree>).map(([key, child]) => [key, plain(child)]),
  );
};

function errorOf(tree: unknown): string {
  try {
    downloadTree(tree as { [key: string]: StateTree });
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('Nothing was thrown.');
}

test('a state comes back as it was', () => {
  const tree = {
    momentum: { 'blocks.0.weight': tf.tensor([[1.5, Number.NaN, -0]], [1, 3], 'float32'), empty: tf.zeros([0, 2]) },
    count: tf.scalar(7, 'int32'),
    mask: tf.tensor([true, false], [2], 'bool'),
    step: 40,
    best: Number.NaN,
    low: -Infinity,
    zero: -0,
    fine: 0.1 + 0.2,
    nothing: {},
    nested: { nothing: {}, '~1/~': 1, '__proto__ ': 2 },
    '@scope/plugin': { strikes: 3 },
  };
  const restored = uploadTree(downloadTree(tree));
  expect(plain(restored)).toEqual(plain(tree));
  expect(downloadTree(restored)).toEqual(downloadTree(tree));
});

test('names are paths, numbers are F64 scalars, empty objects are marked', () => {
  const host = downloadTree({ state: { 'a/b': 1, 'c~': {} }, iterate: { w: tf.scalar(2) } });
  expect([...host]).toEqual([
    ['state/a~1b', { dtype: 'F64', shape: [], data: Float64Array.of(1) }],
    ['state/c~0/', { dtype: 'U8', shape: [0], data: new Uint8Array(0) }],
    ['iterate/w', { dtype: 'F32', shape: [], data: Float32Array.of(2) }],
  ]);
});

test('the copy does not change with the tensor, and no tensor is left', () => {
  const values = Float32Array.of(1, 2);
  const before = tf.memory().numTensors;
  const weight = tf.tensor(values, [2]);
  const host = downloadTree({ weight });
  values[0] = 9; // the cpu backend keeps the caller's array
  expect(weight.dataSync()[0]).toBe(9);
  expect(host.get('weight')?.data).toEqual(Float32Array.of(1, 2));
  weight.dispose();
  stateTensors(uploadTree(host)).forEach((tensor) => tensor.dispose());
  expect(tf.memory().numTensors).toBe(before);
});

test('a key named __proto__ is a key like any other', () => {
  const tree = JSON.parse('{"__proto__":{"polluted":1}}') as { [key: string]: StateTree };
  expect(Object.keys(uploadTree(downloadTree(tree)))).toEqual(['__proto__']);
  expect(({} as { polluted?: number }).polluted).toBeUndefined();
});

test('parameters keep their dotted names', () => {
  const params = uploadParams(downloadTree({ 'embedding.weight': tf.ones([2, 2]), 'norm.gain': tf.zeros([2]) }));
  expect(plain(params)).toEqual({
    'embedding.weight': { dtype: 'float32', shape: [2, 2], values: [1, 1, 1, 1] },
    'norm.gain': { dtype: 'float32', shape: [2], values: [0, 0] },
  });
  expect(() => uploadParams(downloadTree({ step: 1 }))).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: "step" of type F64 is not a float32 parameter of a model.]`,
  );
  expect(() => uploadParams(downloadTree({ a: { b: tf.scalar(1) } }))).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: "a/b" of type F32 is not a float32 parameter of a model.]`,
  );
});

test('what cannot be stored is refused with its path', () => {
  expect(errorOf({ a: { b: 'text' } })).toMatchInlineSnapshot(
    `"The state "a/b" is of type string, which a checkpoint cannot hold."`,
  );
  expect(errorOf({ a: [1, 2] })).toMatchInlineSnapshot(`"The state "a" is an array, which a checkpoint cannot hold."`);
  expect(errorOf({ a: undefined })).toMatchInlineSnapshot(
    `"The state "a" is of type undefined, which a checkpoint cannot hold."`,
  );
  expect(errorOf({ a: new Map() })).toMatchInlineSnapshot(
    `"The state "a" is of type object, which a checkpoint cannot hold."`,
  );
  expect(errorOf({ a: { '': 1 } })).toMatchInlineSnapshot(
    `"The state "a" is an object with an empty key, which a checkpoint cannot hold."`,
  );
  expect(errorOf({ a: tf.tensor(['x']) })).toMatchInlineSnapshot(
    `"The state "a" is a tensor of type string, which a checkpoint cannot hold."`,
  );
});
