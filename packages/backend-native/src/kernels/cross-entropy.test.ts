import { tf } from '@llmx/core';
import { beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectClose, expectLikeReference, values } from '../testing/compare.ts';
import { type Argument, argument, describeEngine } from '../testing/kernels.ts';
import { read, tensor } from '../testing/like-cpu.ts';
import { crossEntropyKernels } from './cross-entropy.ts';

const empty = (...shape: number[]): Argument =>
  argument(new Float32Array(shape.reduce((product, length) => product * length, 1)).fill(NaN), ...shape);

/** Labels below `vocab`, every third ignored. */
const labelsFor = (rows: number, vocab: number): Int32Array =>
  Int32Array.from({ length: rows }, (_, row) => (vocab === 0 || row % 3 === 2 ? -1 : (row * 7919) % vocab));

interface Sizes {
  readonly rows: number;
  readonly width: number;
  readonly vocab: number;
}
type Edit = (tensors: { hidden: Float32Array; weight: Float32Array; logSum: Float32Array }) => void;

/** Loss and gradients of the head against their references; `keeps`: with kept logits, without, or both. */
function check(sizes: Sizes, transposed: number, keeps = [false, true], edit?: Edit): void {
  for (const bfloat16 of [0, 1]) checkIn(sizes, [transposed, bfloat16], keeps, edit);
}

function checkIn(
  { rows, width, vocab }: Sizes,
  [transposed, bfloat16]: readonly [number, number],
  keeps: readonly boolean[],
  edit: Edit | undefined,
): void {
  // Logits of about 1, whatever the width, and sums of their exponentials that are about right.
  const scale = 2 / Math.sqrt(width + 1);
  const given = () => {
    const tensors = {
      hidden: values(rows * width, 1, -scale, scale),
      weight: values(width * vocab, 2, -1, 1),
      logSum: values(rows, 3, 0, 1).map((value) => Math.log(vocab + 1) + value),
    };
    edit?.(tensors);
    return tensors;
  };
  const numbers = [rows, width, vocab, transposed, bfloat16];
  // A derivative by a logit, below 1, that is a rounding error away from the reference's may be rounded the other way.
  const gradientTolerance = { relative: 1e-5, absolute: bfloat16 === 1 ? 2 ** -8 : 1e-5 };
  for (const kept of keeps) {
    const label = `${rows}x${width}x${vocab} ${transposed} ${bfloat16} ${kept}`;
    expectLikeReference('LlmxLinearCrossEntropy', label, {
      tensors: () => {
        const { hidden, weight } = given();
        const inputs = [argument(hidden), argument(weight), argument(labelsFor(rows, vocab))];
        return [...inputs, empty(rows), kept ? empty(rows, vocab) : undefined, empty(rows)];
      },
      numbers,
      results: kept ? [3, 4, 5] : [3, 5],
      tolerance: { relative: 1e-5, absolute: 1e-5 },
    });
    expectLikeReference('LlmxLinearCrossEntropyGrad', label, {
      tensors: () => {
        const { hidden, weight, logSum } = given();
        const inputs = [argument(hidden), argument(weight), argument(labelsFor(rows, vocab))];
        const logits = kept ? argument(values(rows * vocab, 5, -1, 1)) : undefined;
        const dy = argument(values(rows, 4, -1, 1));
        return [dy, ...inputs, logits, argument(logSum), empty(rows * width), empty(width * vocab)];
      },
      numbers,
      results: [6, 7],
      tolerance: gradientTolerance,
    });
  }
}

describeEngine('cross-entropy', () => {
  test.each([1, 3, 16, 17, 33, 513, 1100])('%i logits per row', (vocab) => {
    for (const rows of [0, 1, 2, 40])
      expectLikeReference('LlmxCrossEntropy', `${rows}x${vocab}`, {
        tensors: () => {
          const logits = argument(values(rows * vocab, 1, -20, 20), rows, vocab);
          return [logits, argument(labelsFor(rows, vocab)), empty(rows), empty(rows, vocab)];
        },
        results: [2, 3],
        tolerance: { relative: 1e-5, absolute: 1e-6 },
      });
  });

  test('NaN and infinity stay in their rows', () => {
    expectLikeReference('LlmxCrossEntropy', 'special', {
      tensors: () => {
        const logits = values(6 * 40, 1);
        logits[20] = NaN;
        logits[60] = Infinity;
        logits[130] = -Infinity; // row 3, among finite ones
        logits.fill(-Infinity, 160, 200);
        return [argument(logits, 6, 40), argument(new Int32Array(6).fill(10)), empty(6), empty(6, 40)];
      },
      results: [2, 3],
      tolerance: { absolute: 1e-6 },
    });
  });
});

describeEngine('linear + cross-entropy', () => {
  test.each([0, 1, 2, 7, 33])('%i rows', (rows) => {
    for (const width of [0, 1, 17, 64])
      for (const vocab of [0, 1, 17, 257]) for (const transposed of [0, 1]) check({ rows, width, vocab }, transposed);
  });

  test('many rows', () => {
    for (const transposed of [0, 1]) check({ rows: 700, width: 40, vocab: 300 }, transposed);
  });

  test('a vocabulary that is taken in chunks', () => {
    for (const transposed of [0, 1]) check({ rows: 45, width: 2, vocab: 200_000 }, transposed, [false]);
  });

  test('NaN and infinity stay in their rows', () => {
    for (const transposed of [0, 1])
      check({ rows: 12, width: 20, vocab: 100 }, transposed, undefined, ({ hidden, logSum }) => {
        hidden[25] = NaN;
        hidden[65] = Infinity;
        logSum[9] = NaN;
      });
  });
});

describeEngine('cross-entropy as kernels', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  const [ROWS, WIDTH, VOCAB] = [6, 5, 23];
  const [hidden, weight, dy] = [values(ROWS * WIDTH, 1), values(WIDTH * VOCAB, 2), values(ROWS, 3)];
  const labels = labelsFor(ROWS, VOCAB);
  const run = (name: string, inputs: Record<string, ReturnType<typeof tensor>>, attributes = {}) =>
    crossEntropyKernels[name]!(nativeBackend(), inputs, attributes);
  const head = (h: Float32Array, w: Float32Array, transposed: boolean) => ({
    hidden: tensor(h, ROWS, WIDTH),
    weight: transposed ? tensor(w, VOCAB, WIDTH) : tensor(w, WIDTH, VOCAB),
    labels: tensor(labels, ROWS),
  });
  const weightedLoss = (h: Float32Array, w: Float32Array, transposed: boolean): number => {
    const [loss] = run('LlmxLinearCrossEntropy', head(h, w, transposed), { transposed });
    return (read(loss!) as Float32Array).reduce((sum, value, row) => sum + value * dy[row]!, 0);
  };

  test.each([false, true])('gradients are those of finite differences (transposed: %s)', (transposed) => {
    const inputs = head(hidden, weight, transposed);
    const [, logSum, logits] = run('LlmxLinearCrossEntropy', inputs, { transposed });
    expect(logits!.shape).toEqual([ROWS, VOCAB]);
    const slope = (x: Float32Array, loss: (moved: Float32Array) => number) =>
      x.map((value, index) => (loss(x.with(index, value + 1 / 64)) - loss(x.with(index, value - 1 / 64))) * 32);
    const byHidden = slope(hidden, (moved) => weightedLoss(moved, weight, transposed));
    const byWeight = slope(weight, (moved) => weightedLoss(hidden, moved, transposed));
    for (const kept of [logits!, tensor(new Float32Array(0), 0)]) {
      const given = { ...inputs, dy: tensor(dy, ROWS), logSum: logSum!, logits: kept };
      const [dHidden, dWeight] = run('LlmxLinearCrossEntropyGrad', given, { transposed });
      expect([dHidden!.shape, dWeight!.shape]).toEqual([inputs.hidden.shape, inputs.weight.shape]);
      expectClose(read(dHidden!), byHidden, { absolute: 2e-3 });
      expectClose(read(dWeight!), byWeight, { absolute: 2e-3 });
    }
  });

  test('logits beyond 128 MiB are not kept', () => {
    const inputs = {
      hidden: tensor(values(4, 1), 4, 1),
      weight: tensor(new Float32Array(2 ** 23 + 1), 1, 2 ** 23 + 1),
    };
    const [loss, , logits] = run('LlmxLinearCrossEntropy', {
      ...inputs,
      labels: tensor(Int32Array.of(0, 1, 2, -1), 4),
    });
    expect(logits!.shape).toEqual([0]);
    const nats = Math.log(2 ** 23 + 1);
    expectClose(read(loss!), [nats, nats, nats, 0]);
  });

  test('a label outside the vocabulary is refused', () => {
    const inputs = { ...head(hidden, weight, false), labels: tensor(Int32Array.of(0, 1, 23, 3, 4, 5), ROWS) };
    expect(() => run('LlmxLinearCrossEntropy', inputs)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The kernel LlmxLinearCrossEntropy failed: label 23 of row 2 is not below the vocabulary's size of 23.]`,
    );
  });

  test('shapes that do not fit are refused', () => {
    const inputs = head(hidden, weight, false);
    expect(() => run('LlmxLinearCrossEntropy', inputs, { transposed: true })).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: LlmxLinearCrossEntropy needs weight as float32 [any, 5], got float32 [5, 23].]`,
    );
    expect(() =>
      run('LlmxCrossEntropy', { logits: tensor(values(12, 1), 3, 4), labels: tensor(new Int32Array(2), 2) }),
    ).toThrowErrorMatchingInlineSnapshot(`[LlmxError: LlmxCrossEntropy needs labels as int32 [3], got int32 [2].]`);
  });
});
