import { tf } from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { beforeAll, expect, test } from 'vitest';

import { fromOfficial, toOfficial } from './official-names.ts';

beforeAll(() => useBackend('cpu'));

test('names of other models are refused', () => {
  expect(() => fromOfficial({ 'transformer.wte.weight': tf.zeros([1]) })).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: The parameter "transformer.wte.weight" is not one of an xLSTM language model.]`,
  );
  expect(() => toOfficial({ 'blocks.0.attention.query.weight': tf.zeros([1]) })).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: The parameter "blocks.0.attention.query.weight" is not one of an xLSTM language model.]`,
  );
});

test('halves of a joined matrix may come in any order', () => {
  const [up, gate] = [tf.tensor2d([[1, 2]]), tf.tensor2d([[3, 4]])];
  const theirs = toOfficial({ 'blocks.2.gate.weight': gate, 'blocks.2.up.weight': up });
  expect(Object.keys(theirs)).toEqual(['xlstm_block_stack.blocks.2.xlstm.proj_up.weight']);
  expect(Object.values(theirs)[0]!.arraySync()).toEqual([[1], [2], [3], [4]]);
});
