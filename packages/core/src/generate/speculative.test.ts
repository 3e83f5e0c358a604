import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { Registry } from '../plugin/registry.ts';
import type { Draft, Model, Params, StateTree, Tokenizer } from '../plugin/types.ts';
import { keyedRng, mapParams, tf } from '../tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';
import { decodeRounds, generate, type GenerationOptions, type GenerationSource } from './generate.ts';
import { distribution, type SamplingOptions } from './sample.ts';
import { DecodingStatistics } from './statistics.ts';
import type { AcceptanceRule } from './verify.ts';

const never = new AbortController().signal;
const greedy = { temperature: 0, topK: 0, topP: 1, seed: 1 };

const row = (tokens: readonly number[]) => tf.tensor2d([[...tokens]], undefined, 'int32');

// Logits after each token of a vocabulary of five; the last one ends the text.
const MODEL = [
  [1, 0.2, -1, 0.5, -1],
  [-0.5, 0.8, 0.3, 0, -0.7],
  [0.4, -1, 0.6, 0.9, -0.2],
  [0, 0.7, -0.3, -1, 0.1],
  [0.5, 0.5, 0, -0.5, -9],
];
const DRAFT = [
  [-0.5, 1, 0, 0.5, 0],
  [0.9, 0.1, 0.3, -1, -2],
  [0.4, 0.6, -1, 0, 1],
  [0.3, 0, 0.3, 0.3, -0.4],
  [0, 0, 0, 0, 0],
];

/** A model whose logits depend on the last token alone: its hidden states are rows of a table. */
function table(rows: readonly (readonly number[])[]) {
  const [size, endOfText] = [rows.length, rows.length - 1];
  const look = (tokens: tf.Tensor) => tf.gather(tf.tensor2d(rows.map((given) => [...given])), tokens);
  const model: Model = {
    dModel: size,
    vocabSize: size,
    init: () => ({}),
    hidden: (_params, { tokens }) => look(tokens),
    logits: (_params, hidden) => tf.clone(hidden),
    initialState: () => ({}),
    step: (_params, tokens, state) => ({ hidden: look(tokens), state }),
    rewind: (_params, state) => state,
  };
  const ids = Uint16Array.of();
  const tokenizer: Tokenizer = {
    vocabSize: size,
    endOfText,
    hash: '',
    byteLengths: new Uint8Array(size),
    encode: () => ids,
    decode: () => new Uint8Array(),
  };
  return { model, params: {}, tokenizer };
}

/** Another model as a draft. It never sees the first token of a text. */
const modelDraft = (model: Model, params: Params, length: number): Draft => ({
  length,
  initialState: () => model.initialState(1),
  async propose({ state: before, tokens, count, draw }) {
    const step = (ids: readonly number[], state: StateTree) =>
      tf.tidy(() => {
        const result = model.step(params, row(ids), state);
        const last = tf.slice(result.hidden, [0, ids.length - 1, 0], [1, 1, -1]);
        return { logits: model.logits(params, last), state: result.state as tf.TensorContainerObject };
      });
    const certain = step(tokens.slice(1), before);
    const guesses: tf.TensorContainer[] = [certain.logits];
    let ids = await draw(certain.logits);
    let { state } = certain;
    for (let index = 1; index < count; index++) {
      const guess = step(ids, state as StateTree);
      guesses.push(guess);
      ids = await draw(guess.logits);
      ({ state } = guess);
    }
    tf.dispose(guesses);
    return certain.state as StateTree;
  },
});

/** What a text is, and how its passes went. */
async function decode(source: GenerationSource, prompt: number[], options: Partial<GenerationOptions>) {
  const statistics = new DecodingStatistics();
  const ids: number[] = [];
  const run = { ...greedy, maxTokens: 30, ...options, onRound: statistics.add };
  for await (const id of generate(source, prompt, run, never)) ids.push(id);
  return { ids, ...statistics.report() };
}

describe.each(TEST_BACKENDS)('speculative decoding on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  const registry = new Registry([builtin]);
  const tokenizer = registry.create('tokenizer', { name: 'bytes' }, {});
  const build = (options: object = {}, draftTokens = 4) => {
    const blocks = [{ block: 'attention', repeat: 2, heads: 2, ...options }];
    const selected = { name: 'decoder', dModel: 16, initStd: 0.5, blocks };
    const model = registry.create('architecture', selected, { vocabSize: 300, contextLength: 24 });
    const params = model.init(keyedRng(2, 'init'));
    const noise = keyedRng(3, 'noise');
    const near = mapParams(params, (value, path) => tf.add(value, noise.normal(path, value.shape, 0.1)));
    return { model, params, tokenizer, draft: modelDraft(model, near, draftTokens) };
  };
  const prompts = [[10, 20, 30], [65], [], Array.from({ length: 40 }, (_, index) => index)];

  test('takes the tokens of ordinary decoding in fewer passes, also past the end of the context', async () => {
    // 30: more than there is room for, near the end of the context.
    for (const [options, length] of [
      [{}, 4],
      [{ window: 3 }, 4],
      [{}, 30],
      [{}, 1],
    ] as const) {
      const { draft, ...source } = build(options);
      let [passes, accepted, proposed, tokens] = [0, 0, 0, 0];
      for (const prompt of prompts) {
        const { ids } = await decode(source, prompt, {});
        const report = await decode({ ...source, draft: { ...draft, length } }, prompt, {});
        expect(report.ids).toEqual(ids);
        [passes, tokens] = [passes + report.passes, tokens + ids.length];
        accepted += report.accepted.reduce((a, b) => a + b, 0);
        proposed += report.proposed.reduce((a, b) => a + b, 0);
      }
      expect(passes).toBeLessThan(0.9 * tokens);
      expect(accepted).toBeGreaterThan(10);
      expect(proposed - accepted).toBeGreaterThan(3);
    }
  });

  test('a model without `rewind` gives the same, with a pass more where tokens are taken back', async () => {
    const { model, ...source } = build();
    const { dModel, vocabSize, maxPositions } = model;
    const fixed: Model = {
      dModel,
      vocabSize,
      maxPositions: maxPositions!,
      init: (rng) => model.init(rng),
      hidden: (...given) => model.hidden(...given),
      logits: (...given) => model.logits(...given),
      initialState: (batch) => model.initialState(batch),
      step: (params, tokens, state) => model.step(params, tokens, state),
    };
    const { passes, tokensPerPass: _, ...expected } = await decode({ ...source, model }, [1, 2], {});
    const report = await decode({ ...source, model: fixed }, [1, 2], {});
    expect(report).toMatchObject(expected);
    expect(report.passes).toBeGreaterThan(passes);
  });

  test('ends at exactly as many tokens as were asked for', async () => {
    const { draft, ...source } = build();
    const { ids } = await decode(source, [7], { maxTokens: 9 });
    for (let maxTokens = 0; maxTokens <= 9; maxTokens++)
      expect((await decode({ ...source, draft }, [7], { maxTokens })).ids).toEqual(ids.slice(0, maxTokens));
  });

  test('leaves no tensors behind, also when it is abandoned half-way', async () => {
    const source = build();
    const before = tf.memory().numTensors;
    await decode(source, [1, 2, 3], {});
    for await (const _ of generate(source, [1], { ...greedy, maxTokens: 20 }, never)) break;
    expect(tf.memory().numTensors).toBe(before);
  });
});

const [LENGTH, TEXTS] = [3, 1500];

/** The probability of every text of at most `LENGTH` tokens that the table continues from token 0. */
function expectedTexts(sampling: SamplingOptions): Map<string, number> {
  const texts = new Map<string, number>();
  const follow = (text: readonly number[], probability: number): void => {
    const ended = text.at(-1) === MODEL.length - 1;
    if (ended || text.length === LENGTH) return void texts.set(String(ended ? text.slice(0, -1) : text), probability);
    const next = distribution(Float32Array.from(MODEL[text.at(-1) ?? 0]!), sampling);
    for (const [id, share] of next.entries()) if (share > 0) follow([...text, id], probability * share);
  };
  follow([], 1);
  return texts;
}

/**
 * Pearson's chi-squared of generated texts, as a multiple of what 1 in 1000 samples of the right distribution exceeds
 * (Wilson and Hilferty's approximation). Texts expected fewer than five times count together.
 */
async function deviation(draft: Draft | undefined, sampling: SamplingOptions, rule?: AcceptanceRule): Promise<number> {
  const source = { ...table(MODEL), draft };
  const counts = new Map<string, number>();
  for (let seed = 0; seed < TEXTS; seed++) {
    const text: number[] = [];
    const options = { ...sampling, maxTokens: LENGTH, seed };
    for await (const { ids } of decodeRounds(source, [0], options, never, rule)) text.push(...ids);
    counts.set(String(text), (counts.get(String(text)) ?? 0) + 1);
  }
  const cells = [...expectedTexts(sampling)].map(([text, share]) => [share * TEXTS, counts.get(text) ?? 0] as const);
  expect(cells.reduce((sum, [, count]) => sum + count, 0)).toBe(TEXTS); // no text that the model cannot write
  const rare = cells.filter(([expected]) => expected < 5);
  const common = cells.filter(([expected]) => expected >= 5);
  const together = rare.reduce(([a, b], [c, d]) => [a + c, b + d] as const, [0, 0] as const);
  const all = together[0] >= 5 ? [...common, together] : common;
  const squared = all.reduce((sum, [expected, count]) => sum + (count - expected) ** 2 / expected, 0);
  const freedom = all.length - 1;
  const spread = 2 / (9 * freedom);
  return squared / (freedom * (1 - spread + 3.09 * Math.sqrt(spread)) ** 3);
}

describe('draft tokens', () => {
  const source = table(MODEL);
  const draft = modelDraft(table(MODEL).model, {}, 3);
  const asked = (draftTokens: number, given: GenerationSource) => decode(given, [0], { draftTokens, maxTokens: 9 });

  test('may be fewer than the draft has', async () => {
    expect((await asked(2, { ...source, draft })).proposed).toHaveLength(2);
    expect((await asked(0, { ...source, draft })).proposed).toHaveLength(0);
  });
  test('cannot be more', async () => {
    await expect(asked(4, { ...source, draft })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: 4 draft tokens were asked for, but the model has 3 heads.]`,
    );
    await expect(asked(1, source)).rejects.toThrow('0 heads');
  });
});

describe('sampling', () => {
  beforeAll(() => useBackend('cpu'));
  const draft = modelDraft(table(DRAFT).model, {}, 2);
  const settings = { temperature: 0.8, topK: 3, topP: 0.95 };

  test('a draft that agrees with the model is always right', async () => {
    const source = { ...table(MODEL), draft: modelDraft(table(MODEL).model, {}, 3) };
    let proposals = 0;
    for (let seed = 0; seed < 20; seed++) {
      const { accepted, proposed, ids } = await decode(source, [0, 1], { ...settings, maxTokens: 9, seed });
      // Proposals after an end of text are of no use.
      if (ids.length === 9) expect(accepted).toEqual(proposed);
      proposals += ids.length === 9 ? proposed[2]! : 0;
    }
    expect(proposals).toBeGreaterThan(5);
  });

  test.each([
    ['the whole distribution', { temperature: 1, topK: 0, topP: 1 }],
    ['a processed one', settings],
  ])('speculative texts follow the distribution of the model: %s', async (_title, sampling) => {
    expect(await deviation(draft, sampling)).toBeLessThan(1);
    // The same numbers, without a draft.
    expect(await deviation(undefined, sampling)).toBeLessThan(1);
  });

  test.each<[string, AcceptanceRule]>([
    ['accepts whatever the model can say', (model) => model > 0],
    ['forgets what the draft thinks', (model, _draft, uniform) => uniform < model],
    ['accepts half of what it should', (model, drafted, uniform) => 2 * uniform * drafted < model],
  ])('a wrong rule does not: one that %s', async (_title, rule) => {
    expect(await deviation(draft, settings, rule)).toBeGreaterThan(1);
  });
});
