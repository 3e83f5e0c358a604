import { expect, test } from 'vitest';

import { argument, describeEngine } from '../testing/kernels.ts';
import { values } from '../testing/compare.ts';
import { expectGradient, expectLevelsAgree, type KernelCase, resultsOf, withInput } from '../testing/kernel-case.ts';
import { causalConvolutionKernels } from './causal-convolution.ts';

type Sizes = readonly [batch: number, time: number, channels: number, taps: number];

const convolution = ([batch, time, channels, taps]: Sizes, biased = true): KernelCase => ({
  kernel: 'LlmxCausalConvolution',
  inputs: [
    argument(values(batch * time * channels, 1), batch, time, channels),
    argument(values(taps * channels, 2), taps, channels),
    biased ? argument(values(channels, 3)) : undefined,
  ],
  outputs: [[batch, time, channels]],
  numbers: [batch, time, channels, taps],
});

const gradientOf = ({ inputs: [x, weight], numbers }: KernelCase): KernelCase => ({
  kernel: 'LlmxCausalConvolutionGrad',
  inputs: [argument(values(x!.values.length, 4), ...x!.shape), x, weight],
  outputs: [x!.shape, weight!.shape, weight!.shape.slice(1)],
  numbers,
});

// Weight gradients are sums over all positions: 600 terms of up to 4.
const TOLERANCE = { relative: 2e-6, absolute: 5e-5 };

describeEngine('causal convolution in C++', () => {
  for (const sizes of [
    [0, 3, 2, 2],
    [1, 0, 2, 2],
    [1, 1, 1, 1],
    [2, 5, 33, 4],
    [1, 2, 7, 5],
    [3, 70, 16, 3],
    [2, 300, 260, 4],
  ] as const)
    test(`equals the scalar form: [${sizes.join(', ')}]`, () => {
      for (const biased of [true, false]) expectLevelsAgree(convolution(sizes, biased), TOLERANCE);
      expectLevelsAgree(gradientOf(convolution(sizes)), TOLERANCE);
    });

  test('has the gradients that finite differences give', () => {
    const forward = convolution([2, 4, 3, 3]);
    const backward = gradientOf(forward);
    const dy = backward.inputs[0]!.values as Float32Array;
    const gradients = resultsOf(backward, { instructionSet: 'reference' });
    for (const index of [0, 1, 2]) expectGradient(forward, index, dy, gradients[index]!);
  });

  for (const poison of [NaN, Infinity])
    test(`passes ${poison} on to what depends on it`, () => {
      const forward = convolution([2, 9, 21, 3]);
      const poisoned = (theCase: KernelCase, index: number): KernelCase =>
        withInput(theCase, index, (theCase.inputs[index]!.values as Float32Array).with(20, poison));
      for (const index of [0, 1, 2]) {
        expectLevelsAgree(poisoned(forward, index), TOLERANCE);
        expectLevelsAgree(poisoned(gradientOf(forward), index), TOLERANCE);
      }
    });
});

test('refuses weights for other channels', () => {
  const info = (...shape: number[]) => ({ dataId: {}, shape, dtype: 'float32' as const });
  const inputs = { x: info(1, 4, 3), weight: info(2, 4) };
  expect(() =>
    causalConvolutionKernels['LlmxCausalConvolution']!({} as never, inputs, {}),
  ).toThrowErrorMatchingInlineSnapshot(
    `[LlmxError: LlmxCausalConvolution needs weight as float32 [any, 3], got float32 [2, 4].]`,
  );
});
