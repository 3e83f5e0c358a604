import {
  describeKernels,
  expectGradient,
  expectLevelsAgree,
  type KernelCase,
  resultsOf,
} from '@llmx/backend-native/testing';
import { test } from 'vitest';

import { kernelLibrary } from './native-kernel-calls.ts';
import { of, random } from './testing/kernel-inputs.ts';

const headwiseCase = (rows: number, blocks: number, inputs: number, outputs: number): KernelCase => ({
  kernel: 'XlstmHeadwise',
  inputs: [random(1, [rows, blocks * inputs]), random(2, [blocks, inputs, outputs])],
  outputs: [[rows, blocks * outputs]],
  numbers: [rows, blocks, inputs, outputs],
});

const gatedReadCase = (rows: number, heads: number, size: number): KernelCase => {
  const [all, features] = [
    [rows, heads, size],
    [heads, size],
  ];
  return {
    kernel: 'XlstmGatedRead',
    inputs: [random(1, all), random(2, all), random(3, all, -9, 9), random(4, features), random(5, features)],
    outputs: [all],
    numbers: [rows, heads, size, 1e-5],
  };
};

/** The case of the gradients of all inputs. */
const gradientOf = (forward: KernelCase): KernelCase => ({
  kernel: `${forward.kernel}Grad`,
  inputs: [random(9, forward.outputs[0]!), ...forward.inputs],
  outputs: forward.inputs.map((input) => input!.shape),
  numbers: forward.numbers,
});

/** The scalar form's gradients of all inputs against differences. */
function expectGradients(forward: KernelCase): void {
  const backward = gradientOf(forward);
  const dy = backward.inputs[0]!.values as Float32Array;
  for (const [index, gradient] of resultsOf(backward, { instructionSet: 'reference' }).entries())
    expectGradient(forward, index, dy, gradient, of(2e-3));
}

describeKernels(kernelLibrary(), 'headwise maps in C++', () => {
  // No rows, blocks that fill no vector, rows that are no multiple of those taken together, several parts, wide blocks.
  test.each([
    [0, 4, 4, 4],
    [1, 1, 4, 4],
    [3, 5, 4, 4],
    [70, 17, 4, 4],
    [4100, 4, 4, 4],
    [0, 2, 3, 5],
    [5, 3, 7, 2],
    [300, 2, 33, 40],
    [4099, 1, 3, 3],
  ] as const)('%i rows of %i blocks of %i x %i equal the scalar form', (rows, blocks, inputs, outputs) => {
    const forward = headwiseCase(rows, blocks, inputs, outputs);
    expectLevelsAgree(forward, of(2e-6));
    expectLevelsAgree(gradientOf(forward), of(1e-5));
  });

  test('have the gradients that finite differences give', () => expectGradients(headwiseCase(3, 2, 4, 3)));
});

describeKernels(kernelLibrary(), 'gated reads in C++', () => {
  test.each([
    [0, 2, 4],
    [1, 1, 1],
    [17, 3, 7],
    [5, 2, 64],
    [1100, 2, 33],
  ] as const)('%i rows of %i heads of %i equal the scalar form', (rows, heads, size) => {
    const forward = gatedReadCase(rows, heads, size);
    expectLevelsAgree(forward, of(1e-5));
    expectLevelsAgree(gradientOf(forward), of(5e-5));
  });

  test('have the gradients that finite differences give', () => expectGradients(gatedReadCase(2, 2, 5)));
});
