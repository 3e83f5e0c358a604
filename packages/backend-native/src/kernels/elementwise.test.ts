import { compile, derivatives, expr, type Expression, LlmxError, type Program, tf } from '@llmx/core';
import { beforeAll, describe, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '../component.ts';
import type { TensorInfo } from '../engine.ts';
import { expectClose, expectLikeReference, LENGTHS, SPECIAL, type Tolerance, values } from '../testing/compare.ts';
import { argument, describeEngine, runKernel } from '../testing/kernels.ts';
import { assemble, stepNumber } from './assemble.ts';
import { elementwiseKernels } from './elementwise.ts';

const input = (index: number): Expression => ({ op: 'input', args: [], value: index });
const scalar = (index: number): Expression => ({ op: 'scalar', args: [], value: index });
const { add, sub, mul, div, neg, square, sqrt, sigmoid, erf, exp, float32 } = expr;
const [a, b, c, d] = [input(0), input(1), input(2), input(3)];

/** For one operation: a few units in the last place; results below the normal numbers may be 0. */
const ONE = { tolerance: { relative: 4e-7, absolute: 1e-37 } };

const UNARY = ['neg', 'abs', 'sign', 'square', 'sqrt', 'exp', 'log', 'tanh', 'sigmoid', 'softplus', 'erf'] as const;
const BINARY = ['add', 'sub', 'mul', 'div', 'min', 'max', 'greater'] as const;

/** Kernel arguments and numbers for a program over `length` elements. */
function call(
  program: Program,
  inputs: readonly Float32Array[],
  scalars: readonly number[] = [],
  overwrite: (number | undefined)[] = [],
) {
  const length = Math.max(...inputs.map((given) => given.length));
  const { header, uniforms } = assemble(program, overwrite);
  const copies = inputs.map((given) => given.slice());
  const outputs = program.outputs.map((_, index) => {
    const place = overwrite[index];
    return place === undefined ? new Float32Array(length) : copies[place]!;
  });
  const tensors = [...copies, ...outputs].map((given) => argument(given));
  return { tensors, outputs, numbers: [length, ...header, ...uniforms(scalars)] };
}

interface ProgramCase {
  readonly scalars?: readonly number[];
  readonly overwrite?: (number | undefined)[];
  readonly tolerance?: Tolerance;
}

function expectProgram(
  label: string,
  program: Program,
  inputs: Float32Array[],
  { scalars = [], overwrite = [], tolerance = {} }: ProgramCase = {},
): void {
  const { numbers } = call(program, inputs, scalars, overwrite);
  expectLikeReference('LlmxElementwise', label, {
    tensors: () => call(program, inputs, scalars, overwrite).tensors,
    numbers,
    results: program.outputs.map((_, index) => program.inputs + index),
    tolerance,
  });
}

/** The program over numbers, in float64, by its own instructions. */
function interpret(program: Program, inputs: readonly number[], scalars: readonly number[]): number[] {
  const rules: Record<string, (...x: number[]) => number> = {
    negate: (x) => -x,
    square: (x) => x * x,
    sqrt: Math.sqrt,
    exp: Math.exp,
    sigmoid: (x) => 1 / (1 + Math.exp(-x)),
    add: (x, y) => x + y,
    subtract: (x, y) => x - y,
    multiply: (x, y) => x * y,
    divide: (x, y) => x / y,
    maximum: Math.max,
    select: (x, y, z) => (x === 0 ? z : y),
  };
  const results: number[] = [];
  for (const { op, args, value } of program.instructions) {
    const operands = args.map((index) => results[index]!);
    if (op === 'input') results.push(inputs[value]!);
    else if (op === 'scalar') results.push(scalars[value]!);
    else results.push(op === 'constant' ? value : rules[op]!(...operands));
  }
  return program.outputs.map((output) => results[output]!);
}

/** One output of the program over arrays. */
const columnOf = (
  program: Program,
  inputs: readonly Float32Array[],
  output: number,
  scalars: readonly number[] = [],
): number[] =>
  Array.from(
    inputs[0]!,
    (_, i) =>
      interpret(
        program,
        inputs.map((given) => given[i]!),
        scalars,
      )[output]!,
  );

/** Bias-corrected AdamW, as core's optimizer gives it. */
function adamw(): Program {
  const [parameter, gradient, m, v] = [a, b, c, d];
  const [lr, decay, correction1, correction2] = [scalar(0), scalar(1), scalar(2), scalar(3)];
  const first = add(mul(0.9, m), mul(1 - 0.9, gradient));
  const second = add(mul(0.95, v), mul(1 - 0.95, square(gradient)));
  const direction = div(div(first, correction1), add(sqrt(div(second, correction2)), 1e-8));
  const next = sub(mul(parameter, sub(1, mul(lr, decay))), mul(lr, direction));
  return compile([first, second, next], 4, 4);
}

describe('assembling', () => {
  test("an optimizer's step: products, squares, roots and sums in one operation, results directly in place", () => {
    const { header } = assemble(adamw(), [2, 3, 0]);
    const [inputs, outputs, registers, steps] = header;
    expect({ inputs, outputs, registers, steps }).toEqual({ inputs: 4, outputs: 3, registers: 1, steps: 5 });
  });

  test('what is wanted in float32 is not part of a sum', () => {
    const steps = (expression: Expression): number => assemble(compile([expression], 3)).header[3]!;
    expect(steps(add(mul(a, b), c))).toBe(1);
    expect(steps(add(float32(mul(a, b)), c))).toBe(2);
    expect(steps(sub(c, float32(mul(2, square(a)))))).toBe(3);
  });

  test('values that do not depend on the element are computed beforehand, in float64', () => {
    const program = compile([mul(a, sub(1, mul(scalar(0), scalar(1))))], 1, 2);
    expect(assemble(program).uniforms([1e-9, 0.1])).toContain(1 - 1e-10);
  });

  test('a program that is too long is refused', () => {
    let sum = a;
    for (let step = 0; step < 200; step++) sum = mul(sum, add(sum, b));
    const failure = (() => {
      try {
        assemble(compile([sum], 2));
      } catch (error) {
        return LlmxError.is(error) ? `${error.code}: ${error.message}` : error;
      }
      return undefined;
    })();
    expect(failure).toMatchInlineSnapshot(
      `"LLMX_NATIVE_ARGUMENT: An elementwise program has 400 steps and 1 numbers; at most 251 fit together."`,
    );
  });
});

describeEngine('elementwise programs', () => {
  test.each(UNARY)('%s', (name) => {
    const program = compile([expr[name](a)], 1);
    for (const length of LENGTHS) expectProgram(`${name} ${length}`, program, [values(length, length + 1, -8, 8)], ONE);
    expectProgram(`${name} small`, program, [values(200, 3, -1e-3, 1e-3)], ONE);
    expectProgram(`${name} special`, program, [Float32Array.from(SPECIAL)], ONE);
  });

  test.each(BINARY)('%s', (name) => {
    const program = compile([expr[name](a, b)], 2);
    for (const length of LENGTHS)
      expectProgram(`${name} ${length}`, program, [values(length, 1), values(length, 2)], ONE);
    const pairs = SPECIAL.flatMap((x) => SPECIAL.map((y) => [x, y] as const));
    const sides = [Float32Array.from(pairs, ([x]) => x), Float32Array.from(pairs, ([, y]) => y)];
    expectProgram(`${name} special`, program, sides, ONE);
  });

  test('select takes the branch, whatever the other one holds', () => {
    const program = compile([expr.select(a, b, c)], 3);
    expectProgram('select', program, [
      Float32Array.of(0, -0, 1, NaN, -3),
      Float32Array.of(NaN, Infinity, 2, 4, 5),
      Float32Array.of(1, 2, NaN, NaN, Infinity),
    ]);
  });

  test('minimum and maximum keep the sign of zero and every NaN', () => {
    const inputs = [Float32Array.of(0, -0, NaN, 1), Float32Array.of(-0, 0, 1, NaN)];
    const { tensors, outputs, numbers } = call(compile([expr.min(a, b), expr.max(a, b)], 2), inputs);
    runKernel('LlmxElementwise', tensors, numbers);
    expect(outputs.map((output) => [...output])).toEqual([
      [-0, -0, NaN, NaN],
      [0, 0, NaN, NaN],
    ]);
  });

  test('functions are accurate to a few units in the last place', () => {
    const x = values(4000, 5, -6, 6);
    const exact: Record<string, (x: number) => number> = {
      exp: Math.exp,
      tanh: Math.tanh,
      sigmoid: (value) => 1 / (1 + Math.exp(-value)),
      softplus: (value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value))),
      log: Math.log,
    };
    for (const [name, f] of Object.entries(exact)) {
      const given = name === 'log' ? x.map((value) => 10 ** value) : x;
      const { tensors, outputs, numbers } = call(compile([expr[name as 'exp'](a)], 1), [given]);
      runKernel('LlmxElementwise', tensors, numbers);
      expectClose(outputs[0]!, Array.from(given, f), { relative: 4e-7, absolute: 1e-38 }, name);
    }
  });

  test('an optimizer, in place and not, at every length', () => {
    for (const length of [...LENGTHS, 16_384, 40_000]) {
      const inputs = [values(length, 1), values(length, 2), values(length, 3), values(length, 4, 0, 1)];
      for (const overwrite of [[], [2, 3, 0]])
        expectProgram(`${length}`, adamw(), inputs, { scalars: [0.01, 0.1, 0.1, 0.05], overwrite });
    }
  });

  test('products and differences in every arrangement', () => {
    const [x, y, z] = [a, b, c];
    const product = mul(x, y);
    const programs = [
      compile([add(product, z), sub(mul(y, x), z), sub(z, mul(x, y))], 3),
      compile([add(mul(2, z), mul(y, x)), sub(mul(x, x), mul(3, z)), sub(mul(3, z), mul(z, y))], 3),
      compile([add(square(x), y), sub(neg(x), neg(y)), mul(2, mul(x, y)), div(mul(3, x), mul(0.5, y))], 3),
      compile([add(product, product), mul(product, z), neg(product)], 3),
      compile([add(mul(mul(2, x), y), z), add(mul(mul(x, z), y), z), mul(mul(mul(3, x), y), mul(2, z))], 3),
      compile([add(square(x), square(y)), add(square(mul(2, x)), mul(3, z)), add(z, mul(-2, square(x)))], 3),
      compile([add(sqrt(mul(3, y)), mul(2, x)), add(z, sqrt(y)), add(sqrt(y), sqrt(mul(2, y)))], 3),
      compile([div(x, 3), div(4, y), expr.max(neg(x), mul(2, y)), exp(neg(square(x)))], 3),
    ];
    const inputs = [values(97, 1), values(97, 2, 0.5, 3), values(97, 3)];
    programs.forEach((program, index) => {
      expectProgram(`arrangement ${index}`, program, inputs);
      const { tensors, outputs, numbers } = call(program, inputs);
      runKernel('LlmxElementwise', tensors, numbers);
      outputs.forEach((output, position) => {
        const expected = columnOf(program, inputs, position);
        expectClose(output, expected, { relative: 1e-6, absolute: 1e-6 }, `arrangement ${index}.${position}`);
      });
    });
  });

  test('outputs in the memory of inputs that are still needed, swapped or given back', () => {
    const inputs = [values(1100, 1), values(1100, 2), values(1100, 3)];
    const cases: [Program, (number | undefined)[]][] = [
      [compile([b, a], 2), [0, 1]],
      [compile([add(a, b), sub(a, b)], 2), [0, 1]],
      [compile([add(a, b), sub(a, b), a], 2), [1, 0, undefined]],
      [compile([a, mul(a, a)], 1), [0, undefined]],
      [compile([mul(a, 2), a, a], 1), [0, undefined, undefined]],
      [compile([mul(a, b), mul(a, b), add(mul(a, b), c)], 3), [2, undefined, 0]],
      [compile([add(scalar(0), scalar(1)), a], 1, 2), [0, undefined]],
    ];
    cases.forEach(([program, overwrite], index) => {
      const given = inputs.slice(0, program.inputs);
      const { tensors, outputs, numbers } = call(program, given, [2, 3], overwrite);
      runKernel('LlmxElementwise', tensors, numbers);
      outputs.forEach((output, position) => {
        const expected = columnOf(program, given, position, [2, 3]);
        expectClose(output, expected, {}, `case ${index}, output ${position}`);
      });
    });
  });

  test('derivatives with many live values', () => {
    const gelu = mul(mul(0.5, a), add(1, erf(mul(Math.SQRT1_2, a))));
    const swiglu = mul(mul(a, sigmoid(a)), b);
    expectProgram('gelu', compile([gelu, ...derivatives(gelu, 1)], 1), [values(700, 1)]);
    const program = compile([swiglu, ...derivatives(swiglu, 2)], 2);
    const inputs = [values(700, 1), values(700, 2)];
    const { tensors, outputs, numbers } = call(program, inputs);
    runKernel('LlmxElementwise', tensors, numbers);
    outputs.forEach((output, position) => {
      const expected = columnOf(program, inputs, position);
      expectClose(output, expected, {}, `output ${position}`);
    });
  });

  test('an input of one element stands for all', () => {
    expectProgram('scalar', compile([add(mul(a, b), c)], 3), [values(1, 1), values(700, 2), values(1, 3)]);
  });

  test.each([
    [40, 7],
    [1, 5],
    [3, 1030],
    [5, 16],
    [2, 33_000],
    [0, 4],
  ])('broadcasting over [%i, %i]', (rows, columns) => {
    const strides = { full: [columns, 1], row: [0, 1], column: [1, 0], one: [0, 0] };
    const sizes = { full: rows * columns, row: columns, column: rows, one: 1 };
    for (const [left, right] of [
      ['full', 'row'],
      ['row', 'full'],
      ['full', 'column'],
      ['column', 'row'],
      ['one', 'full'],
    ] as const)
      expectLikeReference('LlmxBroadcast', `${left} ${right}`, {
        tensors: () => [
          argument(values(sizes[left], 1)),
          argument(values(sizes[right], 2, 1, 2)),
          argument(new Float32Array(rows * columns)),
        ],
        numbers: [stepNumber('divide'), rows, columns, ...strides[left], ...strides[right]],
        results: [2],
      });
  });
});

describeEngine('LlmxElementwise as a kernel', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  const program = compile([add(a, b)], 2);
  const make = (...numbers: number[]): TensorInfo => {
    const engine = nativeBackend();
    const dataId = engine.write(Float32Array.from(numbers), [numbers.length], 'float32');
    return { dataId, shape: [numbers.length], dtype: 'float32' };
  };
  const run = (inputs: readonly TensorInfo[], overwrite: (number | undefined)[]): TensorInfo => {
    const named = Object.fromEntries(inputs.map((info, index) => [`${index}`, info]));
    return elementwiseKernels['LlmxElementwise']!(nativeBackend(), named, { program, scalars: [], overwrite })[0]!;
  };
  const read = ({ dataId }: TensorInfo): number[] => [...(nativeBackend().readSync(dataId) as Float32Array)];

  test('an output takes the memory of an input that nobody else refers to', () => {
    const [x, y] = [make(1, 2, 3), make(10, 20, 30)];
    const z = run([x, y], [0]);
    expect(z.dataId).toBe(x.dataId);
    expect(read(z)).toEqual([11, 22, 33]);
    expect(read(y)).toEqual([10, 20, 30]);
  });

  test('and not of one that somebody else refers to, or that is given twice', () => {
    const [x, y] = [make(1, 2, 3), make(10, 20, 30)];
    nativeBackend().incRef(x.dataId);
    expect(read(run([x, y], [0]))).toEqual([11, 22, 33]);
    expect(read(run([y, y], [0]))).toEqual([20, 40, 60]);
    expect([read(x), read(y)]).toEqual([
      [1, 2, 3],
      [10, 20, 30],
    ]);
  });

  test('inputs of different shapes are refused', () => {
    expect(() => run([make(1, 2), make(1)], [])).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: LlmxElementwise needs input 1 as float32 [2], got float32 [1].]`,
    );
  });
});
