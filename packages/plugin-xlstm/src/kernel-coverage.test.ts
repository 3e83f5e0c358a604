import { type Block, builtin, differentiateParams, keyedRng, Registry, tf } from '@llmx/core';
import { expectKernelCoverage } from '@llmx/core/testing';
import { test } from 'vitest';

import plugin from './index.ts';

const registry = new Registry([builtin, plugin]);
const [BATCH, TIME, WIDTH] = [2, 7, 16];

const build = (name: string): Block =>
  registry.create(
    'block',
    { name, ...(name === 'mlstm' ? { chunk: 4 } : {}) },
    {
      vocabSize: 8,
      contextLength: TIME,
      dModel: WIDTH,
      index: 0,
      depth: 2,
    },
  );

test.each(['mlstm', 'slstm'])('training and decoding with %s need no kernel that a backend lacks', async (name) => {
  const block = build(name);
  await expectKernelCoverage(() => {
    const rng = keyedRng(1, 'init');
    const params = block.init(rng);
    const x = rng.normal('x', [BATCH, TIME, WIDTH], 1);
    for (const segments of [
      undefined,
      tf.tensor2d([0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0], [BATCH, TIME], 'int32'),
    ]) {
      const context = { training: false, dropout: (y: tf.Tensor) => y, ...(segments && { segments }) };
      differentiateParams(() => ({ result: tf.sum(block.forward(params, x, context)) }), params);
    }
    block.step(params, tf.slice(x, [0, 0, 0], [-1, 1, -1]), block.initialState(BATCH), { position: 0 });
    block.step(params, x, block.initialState(BATCH), { position: 0 });
  });
});
