import { tf } from '@llmx/core';
import { beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import { expectClose, expectLikeReference, LENGTHS, values } from '../testing/compare.ts';
import { argument, describeEngine, runKernel } from '../testing/kernels.ts';
import { read, tensor } from '../testing/like-cpu.ts';
import { normKernels } from './norm.ts';

const empty = (...shape: number[]) => argument(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(NaN), ...shape);
const filled = (seed: number, ...shape: number[]) =>
  argument(
    values(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    ...shape,
  );

describeEngine('normalisation', () => {
  test.each([...LENGTHS.filter((width) => width > 0), 4096])('rows of %i', (width) => {
    for (const rows of [0, 1, 5, 70])
      for (const center of [0, 1])
        expectLikeReference('LlmxNorm', `${rows}x${width} ${center}`, {
          tensors: () => [
            filled(1, rows, width),
            filled(2, width),
            center === 1 ? filled(3, width) : undefined,
            empty(rows, width),
            empty(rows),
            empty(rows),
          ],
          numbers: [rows, width, 1e-5, center],
          results: [3, 4, 5],
          // With one column the deviation is only rounding.
          tolerance: { relative: 1e-5, absolute: 1e-5 },
        });
  });

  test('a mean that is large beside the deviations', () => {
    const [x, ones] = [values(300, 1).map((value) => value + 1000), new Float32Array(300).fill(1)];
    const y = new Float32Array(300);
    const tensors = [x, ones, undefined, y, new Float32Array(1), new Float32Array(1)];
    runKernel(
      'LlmxNorm',
      tensors.map((given) => given && argument(given)),
      [1, 300, 1e-5, 1],
    );
    const mean = x.reduce((sum, value) => sum + value, 0) / 300;
    const deviation = Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 300);
    expectClose(
      y,
      Array.from(x, (value) => (value - mean) / deviation),
      { absolute: 2e-4 },
    );
  });

  test.each([...LENGTHS.filter((width) => width > 0), 4096])('gradients over rows of %i', (width) => {
    for (const rows of [0, 1, 5, width < 1000 ? 300 : 20])
      for (const [center, residual] of [
        [1, true],
        [0, false],
      ] as const)
        expectLikeReference('LlmxNormGrad', `${rows}x${width} ${center}`, {
          tensors: () => [
            filled(1, rows, width),
            filled(2, rows, width),
            filled(3, width),
            filled(4, rows),
            argument(values(rows, 5, 0.5, 2), rows),
            residual ? filled(6, rows, width) : undefined,
            empty(rows, width),
            empty(width),
            center === 1 ? empty(width) : undefined,
          ],
          numbers: [rows, width, center],
          results: center === 1 ? [6, 7, 8] : [6, 7],
          tolerance: { relative: 1e-5, absolute: 5e-4 },
        });
  });

  test('the gradient in the memory of what it is added to', () => {
    expectLikeReference('LlmxNormGrad', 'in place', {
      tensors: () => {
        const residual = filled(6, 9, 33);
        const given = [filled(1, 9, 33), filled(2, 9, 33), filled(3, 33), filled(4, 9), filled(5, 9)];
        return [...given, residual, residual, empty(33), empty(33)];
      },
      numbers: [9, 33, 1],
      results: [6, 7, 8],
      tolerance: { absolute: 1e-4 },
    });
  });

  test('NaN and infinity stay in their rows', () => {
    expectLikeReference('LlmxNorm', 'special', {
      tensors: () => {
        const x = values(3 * 20, 1);
        [x[4], x[25]] = [NaN, Infinity];
        return [argument(x, 3, 20), filled(2, 20), filled(3, 20), empty(3, 20), empty(3), empty(3)];
      },
      numbers: [3, 20, 1e-5, 1],
      results: [3, 4, 5],
      tolerance: { absolute: 1e-5 },
    });
  });
});

describeEngine('normalisation as kernels', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  /** sum(dy * y) in float64. */
  const weighted = (x: Float32Array, dy: Float32Array, center: boolean): number => {
    const inputs = { x: tensor(x, 4, 10), weight: tensor(values(10, 3), 10), bias: tensor(values(10, 4), 10) };
    const [y] = normKernels['LlmxNorm']!(nativeBackend(), inputs, { epsilon: 1e-3, center });
    return Array.from(read(y!)).reduce((sum, value, index) => sum + value * dy[index]!, 0);
  };

  test.each([true, false])('the gradient of x is that of finite differences (centred: %s)', (center) => {
    const engine = nativeBackend();
    const [x, dy] = [values(40, 1), values(40, 2)];
    const [given, weight] = [tensor(x, 4, 10), tensor(values(10, 3), 10)];
    const [, mean, scale] = normKernels['LlmxNorm']!(engine, { x: given, weight }, { epsilon: 1e-3, center });
    const inputs = { dy: tensor(dy, 4, 10), x: given, weight, mean: mean!, scale: scale! };
    const [dx] = normKernels['LlmxNormGrad']!(engine, inputs, { center });
    const estimated = x.map((value, index) => {
      const [above, below] = [value + 1 / 128, value - 1 / 128].map((moved) =>
        weighted(x.with(index, moved), dy, center),
      );
      return ((above! - below!) / 2) * 128;
    });
    expectClose(read(dx!), estimated, { relative: 1e-3, absolute: 1e-3 });
  });

  test('shapes that do not fit are refused', () => {
    const inputs = { x: tensor(values(40, 1), 4, 10), weight: tensor(values(9, 3), 9) };
    expect(() =>
      normKernels['LlmxNorm']!(nativeBackend(), inputs, { epsilon: 1e-3, center: true }),
    ).toThrowErrorMatchingInlineSnapshot(`[LlmxError: LlmxNorm needs weight as float32 [10], got float32 [9].]`);
  });
});
