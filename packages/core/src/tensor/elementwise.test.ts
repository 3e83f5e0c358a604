import { beforeAll, describe, expect, test } from 'vitest';

import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';
import { expectClose } from '../testing/close.ts';
import { expectGradients } from '../testing/gradients.ts';
import { elementwise, fuse, runProgram } from './elementwise.ts';
import { compile, expr, inputExpression, OPERATIONS, scalarExpression } from './expression.ts';
import { tf } from './tf.ts';

const [x, y] = [inputExpression(0), inputExpression(1)];

/** Every operation with its value in plain JavaScript. */
const CASES: Record<string, [ReturnType<typeof expr.add>, (a: number, b: number) => number]> = {
  negate: [expr.neg(x), (a) => -a],
  float32: [expr.float32(x), (a) => a],
  abs: [expr.abs(x), Math.abs],
  sign: [expr.sign(x), Math.sign],
  square: [expr.square(x), (a) => a * a],
  sqrt: [expr.sqrt(expr.abs(x)), (a) => Math.sqrt(Math.abs(a))],
  exp: [expr.exp(x), Math.exp],
  log: [expr.log(expr.abs(x)), (a) => Math.log(Math.abs(a))],
  tanh: [expr.tanh(x), Math.tanh],
  sigmoid: [expr.sigmoid(x), (a) => 1 / (1 + Math.exp(-a))],
  softplus: [expr.softplus(x), (a) => Math.log1p(Math.exp(a))],
  erf: [expr.erf(x), erfSeries],
  add: [expr.add(x, y), (a, b) => a + b],
  subtract: [expr.sub(x, y), (a, b) => a - b],
  multiply: [expr.mul(x, y), (a, b) => a * b],
  divide: [expr.div(x, y), (a, b) => a / b],
  minimum: [expr.min(x, y), Math.min],
  maximum: [expr.max(x, y), Math.max],
  greater: [expr.greater(x, y), (a, b) => (a > b ? 1 : 0)],
  select: [expr.select(expr.greater(x, 0), y, 7), (a, b) => (a > 0 ? b : 7)],
};

/** erf by its Taylor series, exact to float64 for |x| < 4. */
function erfSeries(value: number): number {
  let [term, sum] = [value, value];
  for (let n = 1; n < 120; n++) {
    term *= (-value * value) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const A = [-3.2, -1.5, -1, -0.4, -0.01, 0.02, 0.6, 1, 1.7, 2.9];
const B = [0.5, -2, 3, 0.7, -0.3, 1.1, 2, -1, 0.9, -0.2];

test('every operation has a case here', () => {
  const leaves = ['input', 'scalar', 'constant'];
  expect(Object.keys(CASES).toSorted()).toEqual(
    Object.keys(OPERATIONS)
      .filter((op) => !leaves.includes(op))
      .toSorted(),
  );
});

describe.each(TEST_BACKENDS)('elementwise programs on %s', (backend) => {
  beforeAll(() => useBackend(backend));

  test.each(Object.entries(CASES))('%s has its value', (_op, [expression, reference]) => {
    const [output] = runProgram(compile([expression], 2), [tf.tensor1d(A), tf.tensor1d(B)]);
    const expected = A.map((a, index) => reference(Math.fround(a), Math.fround(B[index]!)));
    expectClose(output!, expected, 2e-6 * Math.max(...expected.map(Math.abs)), 'value');
  });

  // Where a derivative jumps, differences across the jump mean nothing: these inputs stay clear of it.
  const smooth = Object.entries(CASES).filter(([op]) => !['sign', 'greater'].includes(op));
  test.each(smooth)('%s has the derivative of central differences', (_op, [expression]) => {
    const f = fuse((a, b) => substitute(expression, a, b));
    const inputs = [A, B].map((values) => tf.tensor1d(values.filter((_, index) => ![4, 5].includes(index))));
    expectGradients((args) => f(args[0]!, args[1]!), inputs, { step: 1e-3, tolerance: 5e-3 });
  });

  test('gated unit: shared parts are computed once and gradients agree with differences', () => {
    const gated = fuse((value, gate) => expr.mul(expr.mul(gate, expr.sigmoid(gate)), value));
    expectGradients((args) => gated(args[0]!, args[1]!), [tf.tensor1d(A), tf.tensor1d(B)], { step: 1e-2 });
  });

  test('scalars change from run to run without a new program', () => {
    const program = compile([expr.mul(x, scalarExpression(0)), expr.add(scalarExpression(1), 1)], 1, 2);
    for (const factor of [2, -0.5]) {
      const [scaled, constant] = runProgram(program, [tf.tensor1d([1, 2])], { scalars: [factor, 3] });
      expectClose(scaled!, [factor, 2 * factor], 0, 'scaled');
      expectClose(constant!, [4, 4], 0, 'constant');
    }
  });

  test('a function of named tensors and numbers gives named tensors', () => {
    const update = elementwise({ inputs: ['p', 'g'], scalars: ['lr'] }, ({ p, g, lr }) => ({
      p: expr.sub(p, expr.mul(lr, g)),
      square: expr.square(g),
    }));
    const tensors = { p: tf.tensor1d([1, 2]), g: tf.tensor1d([3, -1]) };
    const { p, square } = update(tensors, { lr: 0.5 });
    expectClose(p!, [-0.5, 2.5], 0, 'p');
    expectClose(square!, [9, 1], 0, 'square');
    expect(() => update(tensors)).toThrowErrorMatchingInlineSnapshot(`[LlmxError: The scalar "lr" is missing.]`);
    expect(() => update({ p: p! }, { lr: 1 })).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: There is no parameter "g".]`,
    );
  });

  test('a scalar tensor stands for all elements', () => {
    const program = compile([expr.add(expr.mul(x, y), inputExpression(2)), y], 3);
    const inputs = [tf.tensor2d([[1, 2, 3]]), tf.scalar(2), tf.tensor2d([[10, 20, 30]])];
    const [output, factor] = runProgram(program, inputs);
    expectClose(output!, [12, 24, 36], 0, 'output');
    expectClose(factor!, [2, 2, 2], 0, 'the scalar itself');
    expect(() => runProgram(program, [tf.scalar(1), ...inputs.slice(1)])).toThrow('must have one shape');
  });

  test('infinities and NaN pass through as in plain arithmetic', () => {
    const input = tf.tensor1d([Infinity, -Infinity, NaN, 0]);
    const [output] = runProgram(compile([expr.add(expr.mul(x, 2), expr.exp(x))], 1), [input]);
    expect([...output!.dataSync()]).toEqual([Infinity, -Infinity, NaN, 1]);
  });

  test('empty tensors are fine', () => {
    expect(runProgram(compile([expr.exp(x)], 1), [tf.tensor1d([])])[0]!.shape).toEqual([0]);
  });

  test('a wrong number of tensors, other shapes or an unknown scalar are refused', () => {
    const program = compile([expr.add(x, y)], 2);
    expect(() => runProgram(program, [tf.scalar(1)])).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: The program takes 2 tensors, got 1.]`,
    );
    expect(() => runProgram(program, [tf.zeros([2]), tf.zeros([3])])).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: Inputs of a program must have one shape, or be scalars.]`,
    );
    expect(() => compile([scalarExpression(1)], 0, 1)).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: Expression uses scalar 1 of 1.]`,
    );
  });
});

test('equal parts of a program become one instruction', () => {
  const gate = expr.sigmoid(x);
  const program = compile([expr.mul(gate, y), expr.add(expr.sigmoid(inputExpression(0)), 1)], 2);
  expect(program.instructions.map(({ op }) => op)).toEqual([
    'input',
    'sigmoid',
    'input',
    'multiply',
    'constant',
    'add',
  ]);
});

/** The expression with other expressions in place of inputs 0 and 1. */
function substitute(
  expression: ReturnType<typeof expr.add>,
  a: ReturnType<typeof expr.add>,
  b: ReturnType<typeof expr.add>,
): ReturnType<typeof expr.add> {
  if (expression.op === 'input') return expression.value === 0 ? a : b;
  return { ...expression, args: expression.args.map((argument) => substitute(argument, a, b)) };
}
