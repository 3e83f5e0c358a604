import { keyedRng, tf } from '@llmx/core';
import { expectClose, expectGradients, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { type SlstmInputs, slstmScan, slstmScanWithState } from './slstm.ts';

const [BATCH, TIME, HEADS, SIZE] = [2, 7, 2, 3];
const WIDTH = HEADS * SIZE;
const rng = keyedRng(4, 'slstm');
const NAMES = ['inputGate', 'forgetGate', 'cellInput', 'outputGate', 'recurrent', 'bias'] as const;

const asInputs = (tensors: readonly tf.Tensor[]): SlstmInputs =>
  Object.fromEntries(NAMES.map((name, index) => [name, tensors[index]!])) as unknown as SlstmInputs;

const tensors = (spread = 1): tf.Tensor[] => [
  ...NAMES.slice(0, 4).map((name) => rng.normal(name, [BATCH, TIME, WIDTH], spread)),
  rng.normal('recurrent', [HEADS, SIZE, 4 * SIZE], 0.5),
  rng.normal('bias', [4 * WIDTH], 1),
];

/** y, c, n, m: a state that a scan can leave, n is positive. */
const stateBefore = (): tf.Tensor => tf.add(rng.uniform('state', [4, BATCH, WIDTH], 0, 1), 0.5);

const segments = (): tf.Tensor =>
  tf.tensor2d(
    [
      [0, 0, 0, 1, 1, 2, 2],
      [5, 5, 5, 5, 5, 5, 4],
    ],
    [BATCH, TIME],
    'int32',
  );

/** Positions [start, start + length) of the inputs of row `row`, or of all rows. */
function part(all: readonly tf.Tensor[], start: number, length: number, row?: number): tf.Tensor[] {
  const from = [row ?? 0, start, 0];
  const sizes = [row === undefined ? -1 : 1, length, -1];
  return all.map((x, index) => (index < 4 ? tf.slice(x, from, sizes) : x));
}

describe.each(TEST_BACKENDS)('slstmScan on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  test('gradients agree with differences, across documents and from an initial state', () => {
    const f = (xs: tf.Tensor[]) => slstmScan(asInputs(xs), { segments: segments(), state: xs[NAMES.length] });
    expectGradients(f, [...tensors(), stateBefore()], { step: 2e-3, tolerance: 5e-3 });
    expectGradients((xs) => slstmScan(asInputs(xs)), tensors(), { step: 2e-3, tolerance: 5e-3 });
  });

  test('a document gives what it gives by itself', () => {
    const all = tensors();
    const y = slstmScan(asInputs(all), { segments: segments() });
    for (const [row, start, length] of [
      [0, 3, 2],
      [0, 5, 2],
      [1, 6, 1],
    ] as const) {
      const alone = slstmScan(asInputs(part(all, start, length, row)));
      expectClose(tf.slice(y, [row, start, 0], [1, length, -1]), alone, 1e-6, `Row ${row} from ${start}`);
    }
  });

  test('the state carries on across calls', () => {
    const all = tensors();
    const whole = slstmScanWithState(asInputs(all));
    const first = slstmScanWithState(asInputs(part(all, 0, 3)));
    const second = slstmScanWithState(asInputs(part(all, 3, TIME - 3)), { state: first.state });
    expectClose(tf.concat([first.y, second.y], 1), whole.y, 1e-6, 'Outputs');
    expectClose(second.state, whole.state, 1e-5, 'State');
    expect(second.state.shape).toEqual([4, BATCH, WIDTH]);
  });

  test('extreme gates give finite results', () => {
    for (const spread of [30, 300]) {
      const y = slstmScan(asInputs(tensors(spread)));
      expect(y.dataSync().every((value) => Math.abs(value) <= 1)).toBe(true);
    }
  });
});
