import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { Registry } from '../plugin/registry.ts';
import type { Params } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';
import { useBackend } from '../testing/backends.ts';
import { buildModel, checkParams, initialParams } from './model.ts';

const registry = new Registry([builtin]);
const tokenizer = registry.create('tokenizer', { name: 'bytes' }, {});
const config = (vocabSize?: number) => ({
  model: {
    architecture: 'decoder',
    contextLength: 8,
    dModel: 8,
    blocks: [{ block: 'attention', heads: 2 }],
    ...(vocabSize && { vocabSize }),
  },
  objective: { name: 'next-token' },
});

test('the vocabulary is the tokenizer unless a larger one is asked for', () => {
  expect(buildModel(registry, config(), tokenizer).model.vocabSize).toBe(257);
  expect(buildModel(registry, config(300), tokenizer).model.vocabSize).toBe(300);
  expect(() => buildModel(registry, config(256), tokenizer)).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: The tokenizer has 257 ids, which do not fit model.vocabSize 256.]`,
  );
});

describe('parameters', () => {
  beforeAll(() => useBackend('cpu'));
  const parts = buildModel(registry, config(), tokenizer);
  const check = (params: Params) => () => checkParams(params, parts, 'a/model.safetensors');

  test('of the model are accepted, and checking leaves no tensors behind', () => {
    const params = initialParams(parts, 1);
    const before = tf.memory().numTensors;
    expect(check(params)).not.toThrow();
    expect(tf.memory().numTensors).toBe(before);
  });

  test('of another model are refused by name and shape', () => {
    const params = initialParams(parts, 1);
    const { 'norm.weight': _, ...missing } = params;
    expect(check(missing)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The parameters in "a/model.safetensors" are not those of the model: "norm.weight" is missing.]`,
    );
    expect(check({ ...params, other: tf.zeros([1]) })).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The parameters in "a/model.safetensors" are not those of the model: "other" is not in the model.]`,
    );
    expect(
      check({ ...params, 'norm.weight': tf.zeros([9]), 'norm.bias': tf.zeros([9]) }),
    ).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The parameters in "a/model.safetensors" are not those of the model: "norm.weight" is 9 instead of 8, and 1 more.]`,
    );
  });
});
