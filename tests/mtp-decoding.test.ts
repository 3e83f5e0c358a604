// Self-speculative decoding with trained heads says what ordinary decoding says, for Transformers and for xLSTM. With
// LLMX_TEST_ALL (`npm run test:all`): 200 prompts, and the differences that rounding explains, counted.
import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../packages/core/src/builtin.ts';
import { generate, type GenerationSource } from '../packages/core/src/generate/generate.ts';
import { DecodingStatistics } from '../packages/core/src/generate/statistics.ts';
import { HookDriver } from '../packages/core/src/plugin/hook-driver.ts';
import { Registry } from '../packages/core/src/plugin/registry.ts';
import type { HostBatch } from '../packages/core/src/plugin/types.ts';
import { keyedRng, prefixed, tf, uniformValues, randomKey } from '../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../packages/core/src/testing/backends.ts';
import { EVALUATION } from '../packages/core/src/train/forward-context.ts';
import { trainStep, type TrainState } from '../packages/core/src/train/step.ts';
import mtp from '../packages/plugin-mtp/src/index.ts';
import xlstm from '../packages/plugin-xlstm/src/index.ts';

const ALL = process.env['LLMX_TEST_ALL'] !== undefined;
const [PROMPTS, TOKENS, STEPS] = ALL ? [200, 64, 150] : [24, 16, 40];
const [CONTEXT, BATCH] = [48, 4];
/** Logits this close may change places when they are computed in another order. */
const NEAR = 1e-4;
const ALLOWED = 1 / 10_000;

const registry = new Registry([builtin, mtp, xlstm]);
const tokenizer = registry.create('tokenizer', { name: 'bytes' }, {});
const sizes = { vocabSize: tokenizer.vocabSize, contextLength: CONTEXT };
const TEXT = [
  ...tokenizer.encode(
    Buffer.from('The quick brown fox jumps over the lazy dog. Pack my box with five dozen jugs. '.repeat(3)),
  ),
];

function batch(step: number, lookahead: number): HostBatch {
  const uniform = uniformValues(randomKey(1, 'test', 'windows'), BATCH, step * BATCH);
  const starts = Array.from(uniform, (value) => Math.floor(value * (TEXT.length - CONTEXT - lookahead)));
  const cells = starts.flatMap((start) => Array.from({ length: CONTEXT }, (_, t) => start + t));
  return {
    batch: BATCH,
    time: CONTEXT,
    lookahead,
    tokens: Int32Array.from(cells, (cell) => TEXT[cell]!),
    labels: Int32Array.from(
      cells.flatMap((cell) => Array.from({ length: lookahead }, (_, view) => TEXT[cell + 1 + view]!)),
    ),
  };
}

/** A model and its heads, trained for a moment: right often enough, and wrong too. */
function train(blocks: readonly object[], objectiveOptions: { name: string }): GenerationSource {
  const selected = { name: 'decoder', dModel: 32, blocks };
  const model = registry.create('architecture', selected, sizes);
  const objective = registry.create('objective', objectiveOptions, sizes);
  const optimizer = registry.create('optimizer', { name: 'adamw' }, {});
  const rng = keyedRng(1, 'init');
  const params = { ...model.init(rng), ...prefixed('objective', objective.init!(rng.scope('objective'), model)) };
  const length = { totalSteps: STEPS, tokensPerStep: BATCH * CONTEXT };
  const recipe = { model, objective, optimizer, hooks: new HookDriver([]), seed: 1, length, gradClip: 1 };
  let state: TrainState = {
    params,
    frozen: {},
    optimizer: tf.tidy(() => optimizer.init(params) as tf.TensorContainerObject) as never,
  };
  for (let step = 1; step <= STEPS; step++) {
    const input = { info: { step, tokensSeen: 0 }, lr: 0.01, micros: [batch(step, objective.lookahead)] };
    const { state: next, scalars } = trainStep(recipe, state, input);
    tf.dispose(scalars);
    state = next;
  }
  return {
    model,
    params: state.params,
    tokenizer,
    draft: registry.create('draft', objectiveOptions, { ...sizes, model }),
  };
}

/** Parts of the training text, and others. */
const prompts = Array.from({ length: PROMPTS }, (_, index) => {
  const [where = 0, length = 0] = uniformValues(randomKey(2, 'test', 'prompts'), 2, 2 * index);
  const start = Math.floor(where * (TEXT.length - CONTEXT));
  const part = TEXT.slice(start, start + 1 + Math.floor(length * 30));
  return index % 3 === 0 ? part.map((id) => (id * 7 + index) % 256) : part;
});

async function decode(source: GenerationSource, prompt: readonly number[], statistics: DecodingStatistics) {
  const options = { maxTokens: TOKENS, temperature: 0, topK: 0, topP: 1, seed: 1, onRound: statistics.add };
  const ids: number[] = [];
  for await (const id of generate(source, prompt, options, new AbortController().signal)) ids.push(id);
  return ids;
}

/** How far the two likeliest tokens after a text are apart; only as long as the text fits the context. */
function margin({ model, params }: GenerationSource, text: readonly number[]): number {
  if (text.length > CONTEXT) return Infinity;
  const rows = tf.tidy(() => {
    const tokens = tf.tensor2d([[...text]], undefined, 'int32');
    return model.logits(params, model.hidden(params, { tokens }, EVALUATION)).dataSync();
  });
  const [first = 0, second = 0] = rows.slice(-sizes.vocabSize).toSorted().toReversed();
  return first - second;
}

const attention = { block: 'attention', heads: 2 };
const head = { name: 'attention', heads: 2 };
const mlstm = { block: 'mlstm', heads: 2 };

describe.each<[string, readonly object[], { name: string; [option: string]: unknown }]>([
  ['a Transformer with blocks as heads', [{ ...attention, repeat: 2 }], { name: 'multi-token', tokens: 4, head }],
  [
    'a Transformer with linear heads',
    [{ ...attention, repeat: 2 }],
    { name: 'multi-token', tokens: 4, head: 'linear' },
  ],
  [
    'a Transformer with a window and modules',
    [{ ...attention, window: 9 }, attention],
    { name: 'multi-token-sequential', tokens: 4, block: head },
  ],
  [
    'xLSTM with mLSTM heads',
    [mlstm, { block: 'slstm', heads: 2 }],
    { name: 'multi-token', tokens: 4, head: { name: 'mlstm', heads: 2 } },
  ],
  ['xLSTM with modules', [mlstm], { name: 'multi-token-sequential', tokens: 3, block: { name: 'mlstm', heads: 2 } }],
])('%s', (title, blocks, objective) => {
  beforeAll(() => useBackend(TEST_BACKENDS.includes('native') ? 'native' : 'cpu'));

  test(`greedy text is that of ordinary decoding on ${PROMPTS} prompts`, { timeout: 600_000 }, async () => {
    const { draft, ...source } = train(blocks, objective);
    const before = tf.memory().numTensors;
    const [plain, speculative] = [new DecodingStatistics(), new DecodingStatistics()];
    const differences: string[] = [];
    let tokens = 0;
    for (const prompt of prompts) {
      const expected = await decode(source, prompt, plain);
      const actual = await decode({ ...source, draft }, prompt, speculative);
      tokens += expected.length;
      const at = expected.findIndex((id, index) => id !== actual[index]);
      if (at < 0 && actual.length === expected.length) continue;
      const apart = margin(source, [...prompt, ...expected.slice(0, at < 0 ? undefined : at)]);
      differences.push(`token ${at} of a text: ${apart} between the two likeliest`);
      expect(apart, differences.at(-1)).toBeLessThan(NEAR);
    }
    const { acceptance, tokensPerPass } = speculative.report();
    const shares = acceptance.map((share) => share.toFixed(2)).join(' ');
    if (ALL)
      console.log(`${title}: ${tokens} tokens, ${differences.length} near ties, accepted ${shares}`, differences);
    expect(differences.length).toBeLessThanOrEqual(tokens * ALLOWED);
    // Both outcomes were met.
    expect(tokensPerPass).toBeGreaterThan(1.2);
    expect(acceptance.at(-1)).toBeLessThan(0.95);
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose(source.params);
  });
});
