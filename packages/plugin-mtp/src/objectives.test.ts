import {
  at,
  type Batch,
  builtin,
  defineBlock,
  definePlugin,
  differentiateParams,
  keyedRng,
  LlmxError,
  type Model,
  type Params,
  prefixed,
  Registry,
  tf,
  z,
} from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import plugin from './index.ts';

beforeAll(() => useBackend('cpu'));
beforeEach(() => {
  tf.engine().startScope();
  return () => tf.engine().endScope();
});

const registry = new Registry([builtin, plugin]);
const [TIME, VOCAB] = [8, 13];
const sizes = { vocabSize: VOCAB, contextLength: TIME };
const head = { name: 'attention', heads: 2, initStd: 0.3 };
const context = { training: false, dropout: (x: tf.Tensor) => x };
const progress = { step: 1, totalSteps: 10, tokensPerStep: 16 };

const decoder = (): Model =>
  registry.create(
    'architecture',
    { name: 'decoder', dModel: 8, initStd: 0.3, blocks: [{ block: 'attention', repeat: 2, heads: 2, initStd: 0.3 }] },
    sizes,
  );

/** The objective with a model and initial parameters of both. */
function setUp(name: string, options: object, model = decoder()) {
  const objective = registry.create('objective', { name, ...options }, sizes);
  const rng = keyedRng(1, 'init');
  const params = {
    ...model.init(rng),
    ...prefixed('objective', objective.init?.(rng.scope('objective'), model) ?? {}),
  };
  /** Sums of each head's losses. */
  const losses = (batch: Batch): number[] => {
    const { metrics } = objective.loss({ model, params, batch, context, progress });
    return Object.entries(metrics!).flatMap(([path, sum]) =>
      path.startsWith('multiToken/loss/') ? [sum.dataSync()[0]!] : [],
    );
  };
  return { objective, params, losses, model };
}

/** Tokens, and labels at one position alone: the token `view` + 1 ahead of it. */
function single(
  tokens: readonly number[],
  position: number,
  label: number,
  [view, lookahead]: [number, number],
): Batch {
  const labels = Array.from({ length: TIME }, (_, t) =>
    Array.from({ length: lookahead }, (_value, each) => (t === position && each === view ? label : -1)),
  );
  return { tokens: tf.tensor2d([[...tokens]], undefined, 'int32'), labels: tf.tensor3d([labels], undefined, 'int32') };
}

const TOKENS = [3, 1, 4, 1, 5, 9, 2, 6];
const replaced = (position: number): number[] => TOKENS.with(position, 7);

test.each([
  ['multi-token', { tokens: 3, head }, 2],
  ['multi-token-sequential', { tokens: 3, block: head }, 2 + 2],
  ['multi-token-sequential', { tokens: 2, block: head }, 2 + 1],
])('the last head of %s (%o) at position 2 sees the tokens up to %i', (name, options, last) => {
  const { losses, objective } = setUp(name, options);
  const view = objective.lookahead - 1;
  const loss = (tokens: readonly number[]) => losses(single(tokens, 2, 6, [view, objective.lookahead])).at(-1)!;
  const given = loss(TOKENS);
  expect(given).toBeGreaterThan(0);
  expect(Math.abs(loss(replaced(last)) - given)).toBeGreaterThan(1e-4);
  for (let position = last + 1; position < TIME; position++) expect(loss(replaced(position))).toBe(given);
});

test('heads are named by how far ahead they look, apart from the model', () => {
  const paths = (name: string, options: object) =>
    Object.keys(setUp(name, options).params).filter(
      (path) => path.startsWith('objective.') && !path.includes('.block.'),
    );
  expect(paths('multi-token', { tokens: 3, head: 'linear' })).toEqual([
    'objective.heads.2.linear.weight',
    'objective.heads.3.linear.weight',
  ]);
  expect(paths('multi-token', { tokens: 2, head, reads: 'hidden' })).toEqual(['objective.heads.2.norm.weight']);
  expect(paths('multi-token', { tokens: 2, head })).toEqual([]);
  expect(paths('multi-token-sequential', { block: head })).toEqual([
    'objective.heads.2.stateNorm.weight',
    'objective.heads.2.tokenNorm.weight',
    'objective.heads.2.stateProjection.weight',
    'objective.heads.2.tokenProjection.weight',
    'objective.heads.2.norm.weight',
  ]);
  expect(Object.keys(setUp('multi-token', { tokens: 2, head }).params)).toContain(
    'objective.heads.2.block.attention.query.weight',
  );
});

test('a head may be a block of another plugin, with its options', () => {
  const scale = defineBlock({
    name: 'scale',
    summary: 'Multiplies each feature.',
    config: z.strictObject({ start: z.number() }),
    build: ({ start }, { dModel }) => ({
      init: () => ({ weight: tf.fill([dModel], start) }),
      forward: (params, x) => tf.mul(x, at(params, 'weight')),
      initialState: () => ({}),
      step: (params, x, state) => ({ x: tf.mul(x, at(params, 'weight')), state }),
    }),
  });
  const other = definePlugin({ name: 'other', version: '1.0.0', llmx: '*', components: [scale] });
  const both = new Registry([builtin, plugin, other]);
  const selected = { name: 'multi-token', tokens: 2, head: { name: 'scale', start: 3 } };
  const objective = both.create('objective', selected, sizes);
  const params = objective.init!(keyedRng(1, 'init'), decoder());
  expect([...at(params, 'heads.2.block.weight').dataSync()]).toEqual(Array.from({ length: 8 }, () => 3));
});

test('a linear head on the whole model starts as a copy of the next-token head', () => {
  const { losses } = setUp('multi-token', { tokens: 2, head: 'linear', reads: 'hidden' });
  const [, second] = losses(single(TOKENS, 3, 6, [1, 2]));
  const [first] = losses(single(TOKENS, 3, 6, [0, 2]));
  expect(second).toBeCloseTo(first!, 5);
});

describe.each(['tokens', 'heads'])(
  'a batch whose documents are all shorter than the tokens ahead (%s)',
  (normalize) => {
    test.each(['multi-token', 'multi-token-sequential'])('%s trains what it can', (name) => {
      const option = name === 'multi-token' ? { head } : { block: head };
      const { objective, params, model } = setUp(name, { tokens: 4, normalize, ...option });
      // Documents of two tokens: nothing but the next token is ever within one.
      const labels = TOKENS.flatMap((token, t) => [t % 2 === 0 ? token : -1, -1, -1, -1]);
      const segments = Int32Array.from(TOKENS, (_, t) => t >> 1);
      const positions = Int32Array.from(TOKENS, (_, t) => t & 1);
      const shape: [number, number] = [1, TIME];
      const targets = objective.targets({
        batch: 1,
        time: TIME,
        lookahead: 4,
        tokens: Int32Array.from(TOKENS),
        labels: Int32Array.from(labels),
      });
      expect(Object.values(targets)).toEqual(normalize === 'tokens' ? [4] : [4, 0, 0, 0]);
      const batch: Batch = {
        tokens: tf.tensor2d(TOKENS, shape, 'int32'),
        labels: tf.tensor3d(labels, [1, TIME, 4], 'int32'),
        segments: tf.tensor2d(segments, shape, 'int32'),
        positions: tf.tensor2d(positions, shape, 'int32'),
      };
      const { terms } = objective.loss({ model, params, batch, context, progress });
      const sums = Object.values(terms).map(({ sum }) => sum.dataSync()[0]!);
      expect(sums[0]).toBeGreaterThan(0);
      expect(sums.slice(1).every((sum) => sum === 0)).toBe(true);
    });
  },
);

/** What every model has of `model`, and nothing else; with `params` instead of those it is given. */
const without = (model: Model, params?: Params): Model => ({
  dModel: model.dModel,
  vocabSize: model.vocabSize,
  init: (rng) => model.init(rng),
  hidden: (given, batch, circumstances) => model.hidden(params ?? given, batch, circumstances),
  logits: (given, hidden) => model.logits(params ?? given, hidden),
  initialState: (batch) => model.initialState(batch),
  step: (given, tokens, state) => model.step(params ?? given, tokens, state),
});

/** Code, message and hint of what is thrown. */
function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (LlmxError.is(error)) return [error.code, error.message, error.hint].join('\n');
    throw error;
  }
  throw new Error('Nothing was thrown.');
}

test('more tokens than the window has', () => {
  expect(refusal(() => setUp('multi-token', { tokens: 9 }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    objective.tokens 9 is larger than the window of 8 tokens (model.contextLength), so the last heads would have no targets.
    Set objective.tokens to at most 8, or raise model.contextLength."
  `);
  expect(refusal(() => setUp('multi-token-sequential', { tokens: 9 }))).toContain('objective.tokens 9');
  expect(setUp('multi-token', { tokens: 8, head }).objective.lookahead).toBe(8);
});

test('another number of weights than tokens', () => {
  expect(refusal(() => setUp('multi-token', { tokens: 3, weights: [1, 0.5] }))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    objective.weights has 2 entries for 3 tokens.
    Give one weight per token, the next one first, or one for all after the first."
  `);
});

test('a head that is no block', () => {
  expect(refusal(() => setUp('multi-token', { head: 'atention' }))).toMatchInlineSnapshot(`
    "LLMX_COMPONENT_UNKNOWN
    There is no block "atention".
    Did you mean "attention"?"
  `);
});

test('an architecture that does not show its trunk', () => {
  const opaque = without(decoder());
  expect(Object.keys(setUp('multi-token', { tokens: 2, head }, opaque).params)).toContain(
    'objective.heads.2.norm.weight',
  );
  expect(refusal(() => setUp('multi-token', { tokens: 2, head, reads: 'trunk' }, opaque))).toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    objective.reads is trunk, but the architecture does not show what its last block reads.
    Set objective.reads to hidden."
  `);
});

test('an architecture without the token embedding that modules read', () => {
  const { objective, params } = setUp('multi-token-sequential', { block: head });
  const renamed = without(decoder(), params);
  const { 'embedding.tokens': _, ...others } = params;
  const batch = single(TOKENS, 0, 1, [0, objective.lookahead]);
  expect(refusal(() => objective.loss({ model: renamed, params: others, batch, context, progress })))
    .toMatchInlineSnapshot(`
    "LLMX_CONFIG_INVALID
    The objective multi-token-sequential embeds tokens with the parameter "embedding.tokens" of the model, which this architecture does not have as [13, 8].
    Use the architecture decoder, or the objective multi-token."
  `);
});

test('the peak of a step does not grow with the logits of every head', async () => {
  const vocabSize = 4096;
  const wide = { vocabSize, contextLength: 32 };
  const peak = async (tokens: number): Promise<number> => {
    const model = registry.create(
      'architecture',
      { name: 'decoder', dModel: 8, blocks: [{ block: 'attention', heads: 2, repeat: 1 }] },
      wide,
    );
    const objective = registry.create('objective', { name: 'multi-token', tokens, head: 'linear' }, wide);
    const rng = keyedRng(1, 'init');
    const params = { ...model.init(rng), ...prefixed('objective', objective.init!(rng.scope('objective'), model)) };
    const batch = { tokens: tf.zeros([1, 32], 'int32'), labels: tf.zeros([1, 32, tokens], 'int32') };
    const { peakBytes } = await tf.profile(() => {
      const grads = tf.tidy(() => {
        const f = () => ({
          result: Object.values(objective.loss({ model, params, batch, context, progress }).terms)[0]!.sum,
        });
        return differentiateParams(f, params).grads;
      });
      tf.dispose(grads);
      return [];
    });
    return peakBytes;
  };
  const [one, eight] = [await peak(1), await peak(8)];
  // Beyond the first head: its part of the gradient of the unembedding, while the others are added to it.
  expect(eight / one).toBeLessThan(1.3);
});
