/** Scalar expressions: what they are made of, their symbolic derivatives, and their form as a linear program. */
import { assert } from '../errors/index.ts';
import type { Expression } from '../plugin/types.ts';

/** Number of operands of each operation. */
export const OPERATIONS = {
  input: 0,
  scalar: 0,
  constant: 0,
  negate: 1,
  float32: 1,
  abs: 1,
  sign: 1,
  square: 1,
  sqrt: 1,
  exp: 1,
  log: 1,
  tanh: 1,
  sigmoid: 1,
  softplus: 1,
  erf: 1,
  add: 2,
  subtract: 2,
  multiply: 2,
  divide: 2,
  minimum: 2,
  maximum: 2,
  greater: 2,
  select: 3,
} as const;
export type Operation = keyof typeof OPERATIONS;

type Operand = Expression | number;

const node = (op: Operation, args: readonly Expression[] = [], value = 0): Expression => ({ op, args, value });
const constant = (value: number): Expression => node('constant', [], value);
const lift = (operand: Operand): Expression => (typeof operand === 'number' ? constant(operand) : operand);
const isConstant = (expression: Expression, value: number): boolean =>
  expression.op === 'constant' && expression.value === value;

const unary = (op: Operation) => (x: Operand) => node(op, [lift(x)]);
const binary = (op: Operation) => (a: Operand, b: Operand) => node(op, [lift(a), lift(b)]);

/** Functions that build expressions. Numbers may stand for constants. */
export const expr = {
  add(a: Operand, b: Operand): Expression {
    const [x, y] = [lift(a), lift(b)];
    if (isConstant(x, 0)) return y;
    return isConstant(y, 0) ? x : node('add', [x, y]);
  },
  sub(a: Operand, b: Operand): Expression {
    const [x, y] = [lift(a), lift(b)];
    return isConstant(y, 0) ? x : node('subtract', [x, y]);
  },
  mul(a: Operand, b: Operand): Expression {
    const [x, y] = [lift(a), lift(b)];
    if (isConstant(x, 0) || isConstant(y, 0)) return constant(0);
    if (isConstant(x, 1)) return y;
    return isConstant(y, 1) ? x : node('multiply', [x, y]);
  },
  div: binary('divide'),
  min: binary('minimum'),
  max: binary('maximum'),
  /** 1 where a > b, else 0. Its derivative is 0. */
  greater: binary('greater'),
  /** `a` where the condition is not 0, else `b`. */
  select: (condition: Operand, a: Operand, b: Operand) => node('select', [lift(condition), lift(a), lift(b)]),
  neg: unary('negate'),
  /** x, rounded to float32 at this point: else a backend may carry products into sums with more digits. */
  float32: unary('float32'),
  abs: unary('abs'),
  sign: unary('sign'),
  square: unary('square'),
  sqrt: unary('sqrt'),
  exp: unary('exp'),
  log: unary('log'),
  tanh: unary('tanh'),
  sigmoid: unary('sigmoid'),
  /** log(1 + exp(x)). */
  softplus: unary('softplus'),
  erf: unary('erf'),
};

/** Input number `index` of a program. */
export const inputExpression = (index: number): Expression => node('input', [], index);
/** Number `index` among the scalars that a program gets at each run. */
export const scalarExpression = (index: number): Expression => node('scalar', [], index);

const { add, sub, mul, div, greater, select, neg, sign, square, exp } = expr;

type Derivatives = { [O in Operation]: (y: Expression, ...args: Expression[]) => Expression[] };

/** d y / d args of each operation, given y itself and its arguments. */
const DERIVATIVES: Derivatives = {
  input: () => [],
  scalar: () => [],
  constant: () => [],
  negate: () => [constant(-1)],
  float32: () => [constant(1)],
  abs: (_y, x) => [sign(x)],
  sign: () => [constant(0)],
  square: (_y, x) => [mul(2, x)],
  sqrt: (y) => [div(0.5, y)],
  exp: (y) => [y],
  log: (_y, x) => [div(1, x)],
  tanh: (y) => [sub(1, square(y))],
  sigmoid: (y) => [mul(y, sub(1, y))],
  softplus: (_y, x) => [expr.sigmoid(x)],
  erf: (_y, x) => [mul(2 / Math.sqrt(Math.PI), exp(neg(square(x))))],
  add: () => [constant(1), constant(1)],
  subtract: () => [constant(1), constant(-1)],
  multiply: (_y, a, b) => [b, a],
  divide: (y, _a, b) => [div(1, b), neg(div(y, b))],
  minimum: (_y, a, b) => [greater(b, a), sub(1, greater(b, a))],
  maximum: (_y, a, b) => [greater(a, b), sub(1, greater(a, b))],
  greater: () => [constant(0), constant(0)],
  select: (_y, condition) => [constant(0), select(condition, 1, 0), select(condition, 0, 1)],
};

/** Every node below `root`, arguments before the nodes that use them. */
function topological(root: Expression): Expression[] {
  const order: Expression[] = [];
  const seen = new Set<Expression>();
  const visit = (expression: Expression): void => {
    if (seen.has(expression)) return;
    seen.add(expression);
    expression.args.forEach(visit);
    order.push(expression);
  };
  visit(root);
  return order;
}

/** Partial derivatives of `y` by inputs 0 to `inputs` - 1, as expressions (reverse accumulation). */
export function derivatives(y: Expression, inputs: number): Expression[] {
  const adjoints = new Map<Expression, Expression>([[y, constant(1)]]);
  const result: Expression[] = Array.from({ length: inputs }, () => constant(0));
  for (const expression of topological(y).toReversed()) {
    const adjoint = adjoints.get(expression);
    if (adjoint === undefined) continue;
    if (expression.op === 'input') result[expression.value] = add(result[expression.value]!, adjoint);
    const partials = DERIVATIVES[expression.op as Operation](expression, ...expression.args);
    expression.args.forEach((argument, index) => {
      adjoints.set(argument, add(adjoints.get(argument) ?? 0, mul(adjoint, partials[index]!)));
    });
  }
  return result;
}

/** One step: an operation on the results of earlier steps. `value` is the index of an input or scalar, or a constant. */
export interface Instruction {
  readonly op: Operation;
  readonly args: readonly number[];
  readonly value: number;
}

/** Expressions over common inputs in order of evaluation, equal parts computed once. */
export interface Program {
  readonly inputs: number;
  readonly scalars: number;
  readonly instructions: readonly Instruction[];
  /** Instruction whose result is each output. */
  readonly outputs: readonly number[];
}

export function compile(outputs: readonly Expression[], inputs: number, scalars = 0): Program {
  const instructions: Instruction[] = [];
  const byContent = new Map<string, number>();
  const byNode = new Map<Expression, number>();
  const place = (expression: Expression): number => {
    const known = byNode.get(expression);
    if (known !== undefined) return known;
    const args = expression.args.map(place);
    const { op, value } = expression;
    const limit = op === 'input' ? inputs : op === 'scalar' ? scalars : Infinity;
    assert(Math.abs(value) < limit || op === 'constant', `Expression uses ${op} ${value} of ${limit}.`);
    const content = `${op} ${args.join(' ')} ${value}`;
    const index = byContent.get(content) ?? instructions.push({ op: op as Operation, args, value }) - 1;
    byContent.set(content, index);
    byNode.set(expression, index);
    return index;
  };
  return { inputs, scalars, outputs: outputs.map(place), instructions };
}
