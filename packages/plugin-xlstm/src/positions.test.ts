import { Registry, builtin, type Selected } from '@llmx/core';
import { expect, test } from 'vitest';

import plugin from './index.ts';
import { slstmPositions } from './positions.ts';

const registry = new Registry([builtin, plugin]);

/** What a user is told who asks for these options. */
function refusal(kind: 'architecture' | 'block', selected: Selected): string {
  try {
    const context = { vocabSize: 8, contextLength: 8 };
    if (kind === 'architecture') registry.create(kind, selected, context);
    else registry.create(kind, selected, { ...context, dModel: 96, index: 0, depth: 1 });
  } catch (error) {
    const { code, message, hint } = error as { code: string; message: string; hint?: string };
    return [code, message, ...(hint === undefined ? [] : [hint])].join('\n');
  }
  throw new Error('Nothing was refused.');
}

const model = (options: object): Selected => ({ name: 'xlstm', dModel: 64, depth: 4, ...options });

test('positions follow the ratio: the sLSTM blocks come after the first block of each group', () => {
  expect(slstmPositions(16, [7, 1])).toEqual([1, 9]);
  expect(slstmPositions(2, [1, 1])).toEqual([1]);
  expect(slstmPositions(6, [1, 2])).toEqual([1, 2, 4, 5]);
  expect(slstmPositions(3, [0, 1])).toEqual([0, 1, 2]);
  expect(slstmPositions(3, [1, 0])).toEqual([]);
});

test('a ratio that does not fit the number of blocks is refused', () => {
  expect(refusal('architecture', model({ ratio: [7, 1] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    ratio 7:1 repeats every 8 blocks, which does not fit depth 4.
    Set depth to a multiple of 8 such as 8, choose another ratio, or name the sLSTM blocks with slstmAt."
  `);
  expect(refusal('architecture', model({}))).toContain('ratio 7:1');
  expect(refusal('architecture', model({ ratio: [0, 0] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    ratio 0:0 has no blocks.
    Set it to e.g. [7, 1] or [1, 0]."
  `);
});

test('positions outside the model, given twice, or besides a ratio, are refused', () => {
  expect(refusal('architecture', model({ slstmAt: [1, 3, 1] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    slstmAt names block 1 twice.
    Name each sLSTM block once, counting from 0."
  `);
  expect(refusal('architecture', model({ slstmAt: [1, 4] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    slstmAt names block 4, but the model has blocks 0 to 3.
    Name blocks of the model, or raise depth."
  `);
  expect(refusal('architecture', model({ slstmAt: [1], ratio: [1, 1] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    ratio and slstmAt both say where the sLSTM blocks are.
    Leave one of them out."
  `);
});

test('heads that do not divide the width are refused', () => {
  expect(refusal('block', { name: 'mlstm', heads: 5 })).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    The inner width 192 is not a multiple of heads 5.
    Set heads to 4, or change dModel."
  `);
  expect(refusal('block', { name: 'mlstm', projectionBlock: 5 })).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    The inner width 192 is not a multiple of projectionBlock 5.
    Set projectionBlock to 4, or change dModel."
  `);
  expect(refusal('block', { name: 'slstm', heads: 7 })).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    dModel 96 is not a multiple of heads 7.
    Set heads to 6, or change dModel."
  `);
  expect(refusal('block', { name: 'mlstm-large', heads: 5 })).toContain('dModel 96 is not a multiple of heads 5.');
  expect(refusal('block', { name: 'mlstm-large', heads: 8, keyFactor: 0.3 })).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    The width of the keys 28 is not a multiple of heads 8.
    Set heads to 7, or change dModel."
  `);
  expect(refusal('architecture', model({ heads: 3, ratio: [1, 1] }))).toContain('heads 3');
});

test('options of the wrong type are refused', () => {
  expect(refusal('block', { name: 'mlstm', chunk: 0 })).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    mlstm.chunk is 0: expected more than 0."
  `);
  expect(refusal('architecture', model({ ratio: [7] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    xlstm.ratio is [7]: expected two counts, e.g. [7, 1]."
  `);
  expect(refusal('architecture', { name: 'xlstm', size: '7B' })).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    xlstm.size is "7B": expected one of 1M, 3M, 15M, 125M, 350M, 760M, 1.3B."
  `);
});
