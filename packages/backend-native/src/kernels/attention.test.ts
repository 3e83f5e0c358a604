import { expect, test } from 'vitest';

import { argument, describeEngine } from '../testing/kernels.ts';
import { expectClose, values } from '../testing/compare.ts';
import {
  expectGradient,
  expectLevelsAgree,
  type KernelCase,
  resultsOf,
  sizeOf,
  withInput,
} from '../testing/kernel-case.ts';
import { attentionKernels } from './attention.ts';

interface Sizes {
  readonly batch: number;
  readonly queryTime: number;
  readonly keyTime: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly size: number;
  readonly window?: number;
  readonly segments?: boolean;
}

const sizes = (part: Partial<Sizes> & { time?: number }): Sizes => ({
  batch: 1,
  queryTime: part.time ?? 1,
  keyTime: part.time ?? 1,
  heads: 2,
  kvHeads: 1,
  size: 8,
  ...part,
});

const tensor = (shape: readonly number[], seed: number) => argument(values(sizeOf(shape), seed), ...shape)!;
/** Documents of uneven lengths, their numbers neither ascending nor unique. */
const documents = (batch: number, time: number) =>
  argument(
    Int32Array.from({ length: batch * time }, (_, i) => ((i * i) >> 9) % 3),
    batch,
    time,
  );

function forwardCase(s: Sizes): KernelCase {
  const queryShape = [s.batch, s.queryTime, s.heads, s.size];
  const keyShape = [s.batch, s.keyTime, s.kvHeads, s.size];
  const segments = s.segments === true ? documents(s.batch, s.keyTime) : undefined;
  return {
    kernel: 'LlmxAttention',
    inputs: [tensor(queryShape, 1), tensor(keyShape, 2), tensor(keyShape, 3), segments],
    outputs: [queryShape, [s.batch, s.heads, s.queryTime]],
    numbers: [s.batch, s.queryTime, s.keyTime, s.heads, s.kvHeads, s.size, 1 / Math.sqrt(s.size), s.window ?? 0, 0],
  };
}

function backwardCase(forward: KernelCase): KernelCase {
  const [query, key, value, segments] = forward.inputs;
  const [output, logSum] = resultsOf(forward, { instructionSet: 'reference' });
  return {
    kernel: 'LlmxAttentionGrad',
    inputs: [
      tensor(query!.shape, 4),
      query,
      key,
      value,
      argument(output!, ...query!.shape),
      argument(logSum!, ...forward.outputs[1]!),
      segments,
    ],
    outputs: [query!.shape, key!.shape, value!.shape],
    numbers: forward.numbers,
  };
}

const TOLERANCE = { relative: 2e-6, absolute: 4e-6 };
// Gradients of scores are differences of sums over a head, which cancel: several roundings of those sums remain.
const GRADIENT_TOLERANCE = { relative: 4e-6, absolute: 4e-5 };

/** The case with operands of products rounded to bfloat16. */
const rounding = (theCase: KernelCase): KernelCase => ({ ...theCase, numbers: theCase.numbers.with(8, 1) });
// The scalar form rounds operands but not weights, which are off by up to 2^-9 each; and the gradients of scores likewise.
const ROUNDED = { absolute: 1e-5, ofLargest: 2 ** -9 };
const ROUNDED_GRADIENT = { absolute: 1e-4, ofLargest: 2 ** -8 };

const CASES: Readonly<Record<string, Sizes>> = {
  nothing: sizes({ queryTime: 0, keyTime: 0 }),
  'no queries': sizes({ queryTime: 0, keyTime: 3 }),
  'one position': sizes({ time: 1 }),
  'odd sizes': sizes({ batch: 2, time: 5, heads: 3, kvHeads: 3, size: 7 }),
  'one more than twice the vector': sizes({ time: 33, size: 33 }),
  'one block': sizes({ time: 64, size: 64 }),
  'one more than a block, grouped': sizes({ batch: 2, time: 65, heads: 4, kvHeads: 2, size: 16 }),
  'several chunks': sizes({ time: 300, heads: 1, size: 20 }),
  'a window in a block': sizes({ time: 140, window: 20 }),
  'a window of one': sizes({ time: 70, window: 1 }),
  'a window over blocks': sizes({ time: 300, window: 130, heads: 1 }),
  segments: sizes({ batch: 2, time: 150, segments: true }),
  'segments and a window': sizes({ time: 200, window: 70, segments: true }),
  'the last queries': sizes({ queryTime: 50, keyTime: 170 }),
  'the last queries of a window': sizes({ queryTime: 70, keyTime: 290, window: 100 }),
  'one query': sizes({ batch: 2, queryTime: 1, keyTime: 290, heads: 4, kvHeads: 2, size: 36 }),
  'few queries of a window': sizes({ queryTime: 3, keyTime: 400, window: 150, segments: true }),
  'many sequences': sizes({ batch: 32, time: 70, heads: 1 }),
};

describeEngine('attention in C++', () => {
  for (const [name, s] of Object.entries(CASES))
    test(`equals the scalar form: ${name}`, () => {
      const forward = forwardCase(s);
      expectLevelsAgree(forward, TOLERANCE);
      expectLevelsAgree(backwardCase(forward), GRADIENT_TOLERANCE);
      expectLevelsAgree(rounding(forward), ROUNDED);
      expectLevelsAgree(rounding(backwardCase(rounding(forward))), ROUNDED_GRADIENT);
    });

  test('has the gradients that finite differences give', () => {
    const forward = forwardCase(
      sizes({ queryTime: 5, keyTime: 7, heads: 4, kvHeads: 2, size: 3, window: 4, segments: true }),
    );
    const backward = backwardCase(forward);
    const dy = backward.inputs[0]!.values as Float32Array;
    const gradients = resultsOf(backward, { instructionSet: 'reference' });
    for (const index of [0, 1, 2]) expectGradient(forward, index, dy, gradients[index]!);
  });

  test('stays exact for scores too large for exponentials', () => {
    const forward = forwardCase(sizes({ time: 130, size: 16 }));
    const query = values(130 * 2 * 16, 1, -200, 200);
    // Scores of some thousands are rounded to 1e-4, and so are their exponentials.
    expectLevelsAgree(withInput(forward, 0, query), { relative: 2e-4, absolute: 2e-4 });
  });

  // Positions that do not see a poisoned one stay untouched, the others become NaN, whatever the blocks.
  for (const poison of [NaN, Infinity, -Infinity])
    for (const [index, name] of ['query', 'key', 'value', 'dy'].entries())
      test(`passes ${poison} in ${name} on to exactly what depends on it`, () => {
        for (const s of [
          sizes({ time: 150, size: 16 }),
          sizes({ time: 150, size: 16, window: 30, segments: true }),
          sizes({ queryTime: 2, keyTime: 150 }),
        ]) {
          const forward = forwardCase(s);
          const poisoned = (theCase: KernelCase, at: number): KernelCase => {
            const numbers = theCase.inputs[at]!.values as Float32Array;
            return withInput(theCase, at, numbers.with(Math.floor(numbers.length * 0.6), poison));
          };
          if (name === 'dy') {
            expectLevelsAgree(poisoned(backwardCase(forward), 0), GRADIENT_TOLERANCE);
            expectLevelsAgree(rounding(poisoned(backwardCase(forward), 0)), ROUNDED_GRADIENT);
          } else {
            const bad = poisoned(forward, index);
            expectLevelsAgree(bad, TOLERANCE);
            expectLevelsAgree(rounding(bad), ROUNDED);
            if (!Number.isNaN(poison)) continue;
            expectLevelsAgree(backwardCase(bad), GRADIENT_TOLERANCE);
            expectLevelsAgree(rounding(backwardCase(bad)), ROUNDED_GRADIENT);
          }
        }
      });

  // Queries fill blocks of 64, of which the last may be filled up: there a score with -Infinity would be NaN.
  test('keeps what fills up a block of queries out of gradients', () => {
    const forward = forwardCase(sizes({ time: 149, size: 16 }));
    const key = (forward.inputs[1]!.values as Float32Array).with(90 * 16, -Infinity);
    const unseen = withInput(withInput(forward, 0, values(149 * 2 * 16, 1, 0.1, 1)), 1, key);
    expectLevelsAgree(backwardCase(unseen), GRADIENT_TOLERANCE);
    expectLevelsAgree(rounding(backwardCase(unseen)), ROUNDED_GRADIENT);
  });

  test('gives a query the same result alone as among others', () => {
    const forward = forwardCase(sizes({ batch: 1, time: 129, heads: 2, kvHeads: 2 }));
    const [query, key, value] = forward.inputs;
    const [all] = resultsOf(forward);
    const last = argument(query!.values.slice(-16), 1, 1, 2, 8);
    const numbers = forward.numbers.with(1, 1);
    const [one] = resultsOf(
      {
        ...forward,
        inputs: [last, key, value, undefined],
        outputs: [
          [1, 1, 2, 8],
          [1, 2, 1],
        ],
        numbers,
      },
      {},
    );
    expectClose(one!, all!.slice(-16));
  });
});

test('refuses shapes that do not belong together', () => {
  const attention = attentionKernels['LlmxAttention']!;
  const info = (...shape: number[]) => ({ dataId: {}, shape, dtype: 'float32' as const });
  const run = (query: number[], key: number[]) => () =>
    attention({} as never, { query: info(...query), key: info(...key), value: info(...key) }, { scale: 1 });
  expect(run([1, 4, 3, 8], [1, 4, 2, 8])).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: LlmxAttention needs key as float32 [1, 4, 3, 8], got float32 [1, 4, 2, 8].]`,
  );
  expect(run([1, 5, 2, 8], [1, 4, 2, 8])).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: LlmxAttention needs query as float32 [1, 4, 2, 8], got float32 [1, 5, 2, 8].]`,
  );
  expect(run([1, 4, 2, 8], [1, 4, 2, 7])).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: LlmxAttention needs key as float32 [1, any, any, 8], got float32 [1, 4, 2, 7].]`,
  );
});
