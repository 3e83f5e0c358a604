import { builtin, keyedRng, prefixed, Registry, tf } from '@llmx/core';
import { expectClose, useBackend } from '@llmx/core/testing';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import plugin from './index.ts';
import { weightingOf, weightsAt } from './options.ts';

const registry = new Registry([builtin, plugin]);

/** Weights of three losses at steps of a run of 10 steps of 100 tokens. */
function at(steps: readonly number[], weights: unknown): number[][] {
  const selected = { name: 'multi-token', tokens: 3, weights };
  const checked = registry.check('objective', selected, (path) => path.join('.'));
  if (checked.problems) throw checked.problems[0]!;
  const weighting = weightingOf(checked.value as never, 8);
  return steps.map((step) => weightsAt(weighting, { step, totalSteps: 10, tokensPerStep: 100 }));
}

describe('weights', () => {
  test('one for all is that of every loss after the first', () => {
    expect(at([1, 10], 0.5)).toEqual([
      [1, 0.5, 0.5],
      [1, 0.5, 0.5],
    ]);
    expect(at([1, 2, 3, 4], { from: 1, to: 0, over: 2 })).toEqual([
      [1, 1, 1],
      [1, 0.5, 0.5],
      [1, 0, 0],
      [1, 0, 0],
    ]);
  });

  test('change evenly over steps, tokens or a share of the run, each on its own', () => {
    const weights = [1, { from: 0.2, to: 0.7, over: '500tok' }, { from: 0.3, to: 0.1, over: '50%' }];
    const [first, middle, last] = at([1, 3, 6], weights);
    expect([first, last]).toEqual([
      [1, 0.2, 0.3],
      [1, 0.7, 0.1],
    ]);
    expect(middle![1]).toBeCloseTo(0.4, 12);
    expect(middle![2]).toBeCloseTo(0.22, 12);
  });

  test('change over the whole run where nothing else is said, and at once over no steps', () => {
    expect(at([1, 6, 10], { from: 0, to: 1 }).map((each) => each[1])).toEqual([0, 0.5, 0.9]);
    expect(at([1, 2], { from: 0, to: 1, over: 0 }).map((each) => each[1])).toEqual([1, 1]);
  });

  test.each([[-1], [{ from: 1 }], [[1, { from: 1, to: 0, over: 'soon' }, 1]], [{ from: 1, to: 0, until: 5 }]])(
    '%o is refused',
    (weights) => {
      expect(() => at([1], weights)).toThrow('weights');
    },
  );
});

describe.each(['tokens', 'heads'])('a loss whose weight changes (%s)', (normalize) => {
  beforeAll(() => useBackend('cpu'));
  beforeEach(() => {
    tf.engine().startScope();
    return () => tf.engine().endScope();
  });

  test('weighs what the step says, and its metric is not weighed', () => {
    const sizes = { vocabSize: 7, contextLength: 4 };
    const blocks = [{ block: 'attention', heads: 1, repeat: 1 }];
    const model = registry.create('architecture', { name: 'decoder', dModel: 4, blocks }, sizes);
    const weights = [1, { from: 2, to: 0, over: '50%' }];
    const selected = { name: 'multi-token', tokens: 2, head: 'linear', normalize, weights };
    const objective = registry.create('objective', selected, sizes);
    const rng = keyedRng(1, 'init');
    const params = { ...model.init(rng), ...prefixed('objective', objective.init!(rng.scope('objective'), model)) };
    const batch = { tokens: tf.zeros([1, 4], 'int32'), labels: tf.ones([1, 4, 2], 'int32') };
    const context = { training: true, dropout: (x: tf.Tensor) => x };
    const lossAt = (step: number) => {
      const progress = { step, totalSteps: 8, tokensPerStep: 4 };
      const { terms, metrics } = objective.loss({ model, params, batch, context, progress });
      const parts = Object.values(terms).map(({ sum, weight }) => weight * sum.dataSync()[0]!);
      return { sum: parts.reduce((a, b) => a + b), heads: [1, 2].map((head) => metrics![`multiToken/loss/${head}`]!) };
    };
    for (const [step, weight] of [
      [1, 2],
      [2, 1.5],
      [4, 0.5],
      [5, 0],
      [8, 0],
    ] as const) {
      const { sum, heads } = lossAt(step);
      expectClose(tf.add(heads[0]!, tf.mul(heads[1]!, weight)), [sum], 1e-5, `The loss at step ${step}`);
    }
  });
});
