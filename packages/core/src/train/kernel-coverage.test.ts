import { describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { HookDriver } from '../plugin/hook-driver.ts';
import { Registry } from '../plugin/registry.ts';
import type { HostBatch } from '../plugin/types.ts';
import { keyedRng, tf } from '../tensor/index.ts';
import { dispatchedKernels, expectKernelCoverage } from '../testing/index.ts';
import { trainStep } from './step.ts';

const registry = new Registry([builtin]);
const [BATCH, TIME, VOCAB] = [2, 8, 20];

/** A whole training step, and a decoding step after it. */
function step(decoder: object, block: object, optimizer: string, documents: boolean): () => void {
  const context = { vocabSize: VOCAB, contextLength: TIME };
  const blocks = [{ block: 'attention', repeat: 2, heads: 2, ...block }];
  const model = registry.create('architecture', { name: 'decoder', dModel: 8, ...decoder, blocks }, context);
  const objective = registry.create('objective', { name: 'next-token' }, context);
  const rule = registry.create('optimizer', { name: optimizer }, {});
  const ids = (shift: number) => Int32Array.from({ length: BATCH * TIME }, (_, index) => (index * 7 + shift) % VOCAB);
  const segments = Int32Array.from({ length: BATCH * TIME }, (_, index) => Math.floor((index % TIME) / 4));
  const host: HostBatch = {
    batch: BATCH,
    time: TIME,
    lookahead: 1,
    tokens: ids(0),
    labels: ids(7),
    ...(documents && { segments, positions: segments.map((_, index) => index % 4) }),
  };
  return () => {
    const params = model.init(keyedRng(1, 'init'));
    const length = { totalSteps: 1, tokensPerStep: 2 * BATCH * TIME };
    const recipe = { model, objective, optimizer: rule, hooks: new HookDriver([]), seed: 1, length, gradClip: 1 };
    const input = { info: { step: 1, tokensSeen: 0 }, lr: 0.1, micros: [host, host] };
    const { state } = trainStep(recipe, { params, frozen: {}, optimizer: rule.init(params) }, input);
    const first = model.step(state.params, tf.zeros([1, 3], 'int32'), model.initialState(1));
    const second = model.step(state.params, tf.zeros([1, 1], 'int32'), first.state);
    model.logits(state.params, second.hidden);
  };
}

const llama = { norm: 'rmsnorm', positions: 'rotary' };

describe('every backend of TensorFlow.js has the kernels of a training step', () => {
  test.each([
    ['GPT-2 shape, adamw', step({}, { dropout: 0.1 }, 'adamw', false)],
    ['GPT-2 shape with documents, lion', step({}, {}, 'lion', true)],
    [
      'Llama shape with documents, sgd',
      step(
        { ...llama, tieEmbeddings: false },
        { ...llama, activation: 'swiglu', bias: false, kvHeads: 1 },
        'sgd',
        true,
      ),
    ],
    ['sliding window', step(llama, { ...llama, window: 3 }, 'adamw', false)],
  ])('%s', (_title, run) => expectKernelCoverage(run));

  test('a step that needs another kernel fails, naming backend and kernel', async () => {
    const run = () => void tf.denseBincount(tf.tensor1d([0, 1], 'int32'), tf.tensor1d([]), 4);
    expect(await dispatchedKernels(run)).toEqual(['DenseBincount']);
    await expect(expectKernelCoverage(run)).rejects.toThrowErrorMatchingInlineSnapshot(
      `[Error: The backend tfjs-node-gpu has no kernel DenseBincount.]`,
    );
  });
});
