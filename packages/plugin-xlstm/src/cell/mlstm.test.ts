import { differentiate, keyedRng, tf } from '@llmx/core';
import { expectClose, expectGradients, largestMagnitude, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import type { MlstmInputs, MlstmState } from './mlstm-chunk.ts';
import { mlstm, mlstmWithState } from './mlstm.ts';

const [BATCH, TIME, HEADS, KEY, VALUE] = [2, 13, 2, 4, 6];
const rng = keyedRng(3, 'mlstm');

/** Inputs with gates around `input` and `forget`, spread by `spread`. */
function inputsWith({ input = 0, forget = 2, spread = 2, time = TIME } = {}): MlstmInputs {
  const normal = (name: string, size: number) => rng.normal(name, [BATCH, time, HEADS, size], 1);
  const gate = (name: string, mean: number) => rng.normal(name, [BATCH, time, HEADS], spread, mean);
  return {
    query: normal('query', KEY),
    key: normal('key', KEY),
    value: normal('value', VALUE),
    inputGate: gate('inputGate', input),
    forgetGate: gate('forgetGate', forget),
  };
}

const stateBefore = (): MlstmState => ({
  memory: rng.normal('memory', [BATCH, HEADS, KEY, VALUE], 1),
  normalizer: rng.normal('normalizer', [BATCH, HEADS, KEY], 1),
  maximum: rng.normal('maximum', [BATCH, HEADS], 1),
});

const asInputs = ([query, key, value, inputGate, forgetGate]: readonly tf.Tensor[]): MlstmInputs =>
  ({ query, key, value, inputGate, forgetGate }) as MlstmInputs;

/** h and all gradients, in chunks of a length. */
function everything(chunk: number, inputs: MlstmInputs, rest: { segments?: tf.Tensor; state?: MlstmState } = {}) {
  const { state, ...options } = rest;
  const xs = [...Object.values<tf.Tensor>({ ...inputs }), ...Object.values<tf.Tensor>({ ...state })];
  const { value, grads } = differentiate(() => {
    const h = mlstm(inputs, { chunk, ...options, state });
    return { result: tf.sum(tf.mul(h, rng.normal('weight', h.shape, 1))), h };
  }, xs);
  return [value.h, ...grads];
}

function expectSame(actual: readonly tf.Tensor[], expected: readonly tf.Tensor[], tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((tensor, index) =>
    expectClose(tensor, expected[index]!, tolerance * largestMagnitude(expected[index]!), `Result ${index}`),
  );
}

const segments = (): tf.Tensor =>
  tf.tensor2d(
    [
      [0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3],
      [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ],
    [BATCH, TIME],
    'int32',
  );

describe.each(TEST_BACKENDS)('mlstm on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  test.each([2, 3, 5, 12, 13, 64])('chunks of %i give what the recurrence gives, and its gradients', (chunk) => {
    for (const rest of [{}, { state: stateBefore() }, { segments: segments() }])
      expectSame(everything(chunk, inputsWith(), rest), everything(1, inputsWith(), rest), 5e-5);
  });

  test('gradients agree with differences', () => {
    const inputs = inputsWith({ spread: 1 });
    const f = (xs: tf.Tensor[]) => mlstm(asInputs(xs), { chunk: 4, segments: segments() });
    // Differences mean little where |q . n| crosses its floor, so that the step is small and the tolerance wide.
    expectGradients(f, Object.values({ ...inputs }), { step: 1e-3, tolerance: 2e-2 });
  });

  test('gradients of an initial state agree with differences', () => {
    const inputs = inputsWith({ spread: 1 });
    const f = ([memory, normalizer, maximum]: tf.Tensor[]) =>
      mlstm(inputs, { chunk: 4, state: { memory: memory!, normalizer: normalizer!, maximum: maximum! } });
    expectGradients(f, Object.values({ ...stateBefore() }), { step: 1e-3, tolerance: 2e-2 });
  });

  test('a document gives what it gives by itself', () => {
    const inputs = inputsWith();
    const whole = mlstm(inputs, { chunk: 4, segments: segments() });
    for (const [start, length] of [
      [3, 4],
      [7, 1],
      [8, 5],
    ] as const) {
      const part = (x: tf.Tensor) =>
        tf.slice(x, [0, start, 0, 0].slice(0, x.rank), [1, length, -1, -1].slice(0, x.rank));
      const alone = mlstm(asInputs(Object.values({ ...inputs }).map(part)), { chunk: 4 });
      expectClose(part(whole), alone, 1e-5 * largestMagnitude(alone), `Document from ${start}`);
    }
  });

  test('the state carries on across calls, and keeps its size', () => {
    const inputs = inputsWith();
    const whole = mlstmWithState(inputs, { chunk: 64 });
    let state: MlstmState | undefined;
    let start = 0;
    for (const length of [1, 4, 1, 7]) {
      const part = (x: tf.Tensor) =>
        tf.slice(x, [0, start, 0, 0].slice(0, x.rank), [-1, length, -1, -1].slice(0, x.rank));
      const result = mlstmWithState(asInputs(Object.values({ ...inputs }).map(part)), { chunk: 3, state });
      expectClose(result.h, part(whole.h), 1e-4 * largestMagnitude(whole.h), `Positions from ${start}`);
      state = result.state;
      start += length;
      expect(Object.values({ ...state }).map(({ shape }) => shape)).toEqual([
        [BATCH, HEADS, KEY, VALUE],
        [BATCH, HEADS, KEY],
        [BATCH, HEADS],
      ]);
    }
    expectSame(Object.values({ ...state }), Object.values({ ...whole.state }), 1e-5);
  });

  test.each([
    ['open', { input: 80, forget: 80 }],
    ['shut', { input: -80, forget: -80 }],
    ['forgetting', { input: 20, forget: -80 }],
    ['remembering', { input: -20, forget: 80 }],
    ['all over', { spread: 40 }],
    ['beyond the range of exp', { input: -300, forget: -300 }],
  ])('gates that are %s give finite results that do not depend on the chunks', (_title, gates) => {
    const inputs = inputsWith(gates);
    const results = everything(1, inputs);
    for (const tensor of results) expect(tensor.dataSync().every((value) => Number.isFinite(value))).toBe(true);
    for (const chunk of [4, 13]) {
      const [h] = everything(chunk, inputs);
      // Sums of decays of several hundred keep fewer digits.
      expectClose(h!, results[0]!, 2e-3 * largestMagnitude(results[0]!) + 1e-30, `Chunks of ${chunk}`);
    }
  });
});
