import { fileURLToPath } from 'node:url';

import { beforeAll, expect, test } from 'vitest';

import * as core from '../packages/core/src/index.ts';
import { buildModel } from '../packages/core/src/run/model.ts';
import { useBackend } from '../packages/core/src/testing/index.ts';

beforeAll(() => useBackend('composite'));

const root = fileURLToPath(new URL('..', import.meta.url));

/** Number of parameters of the model that an example configures. */
async function parameters(file: string): Promise<number> {
  const host = { cwd: root, installRoot: root, firstParty: {}, log: () => undefined };
  const resolved = await core.resolveConfig({
    host,
    file,
    builtin: core.builtin,
    coreVersion: core.VERSION,
    coreModule: core,
  });
  const tokenizer = resolved.registry.create('tokenizer', { name: 'bytes' }, {});
  const params = core.tf.tidy(() => {
    const rng: core.Rng = {
      normal: (_, shape) => core.tf.zeros([...shape]),
      uniform: (_, shape) => core.tf.zeros([...shape]),
      scope: () => rng,
    };
    const { model } = buildModel(resolved.registry, resolved.config, tokenizer);
    return Object.values(model.init(rng)).reduce((sum, { size }) => sum + size, 0);
  });
  return params;
}

test('the GPT-2 shape is a configuration', async () => {
  // Embeddings, twelve blocks of attention, feed-forward and two norms, the last norm: 124,439,808 in the released model.
  expect(await parameters('examples/gpt2/llmx.config.yaml')).toBe(124_439_808);
});

test('the Llama shape is a configuration', async () => {
  const [d, ff, kv, blocks, vocab] = [512, 1376, 128, 8, 257];
  const perBlock = 2 * d * d + 2 * d * kv + 3 * d * ff + 2 * d;
  expect(await parameters('examples/llama/llmx.config.yaml')).toBe(2 * vocab * d + blocks * perBlock + d);
});
