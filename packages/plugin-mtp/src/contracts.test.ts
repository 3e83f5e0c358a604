import { builtin, differentiateParams, keyedRng, prefixed, Registry, tf } from '@llmx/core';
import { describeObjective, expectKernelCoverage } from '@llmx/core/testing';
import { describe, test } from 'vitest';

import plugin from './index.ts';

const head = { name: 'attention', heads: 2, initStd: 0.2 };
const PARALLEL = [
  { tokens: 3, head },
  { tokens: 3, head, reads: 'hidden', normalize: 'heads', weights: [1, 0.5, 0.25] },
  { tokens: 4, head: 'linear', weights: 0.5 },
  { tokens: 1 },
];
const SEQUENTIAL = [
  { tokens: 3, block: head },
  { block: head, normalize: 'heads' },
];

describeObjective({ plugin, name: 'multi-token', options: PARALLEL });
describeObjective({ plugin, name: 'multi-token-sequential', options: SEQUENTIAL });

describe('every backend of TensorFlow.js has the kernels of a training step', () => {
  const registry = new Registry([builtin, plugin]);
  const sizes = { vocabSize: 11, contextLength: 6 };
  const blocks = [{ block: 'attention', heads: 2, repeat: 1 }];
  test.each([
    ['multi-token', PARALLEL[0]!],
    ['multi-token', PARALLEL[2]!],
    ['multi-token-sequential', SEQUENTIAL[0]!],
  ])('%s %o', async (name, options) => {
    const model = registry.create('architecture', { name: 'decoder', dModel: 8, blocks }, sizes);
    const objective = registry.create('objective', { name, ...options }, sizes);
    await expectKernelCoverage(() => {
      const rng = keyedRng(1, 'init');
      const params = { ...model.init(rng), ...prefixed('objective', objective.init!(rng.scope('objective'), model)) };
      const batch = { tokens: tf.ones([2, 6], 'int32'), labels: tf.ones([2, 6, objective.lookahead], 'int32') };
      const context = { training: true, dropout: (x: tf.Tensor) => x };
      const progress = { step: 1, totalSteps: 1, tokensPerStep: 12 };
      differentiateParams(() => {
        const { terms } = objective.loss({ model, params, batch, context, progress });
        return { result: tf.addN(Object.values(terms).map(({ sum }) => sum)) };
      }, params);
    });
  });
});
