/** TensorFlow.js's ops of one and two operands, for float32; anything else is tfjs-backend-cpu's. */
import { compile, expr, type Expression, type Program, tf } from '@llmx/core';

import type { Engine, NativeKernel, TensorInfo } from '../engine.ts';
import { fallback } from '../fallback.ts';
import { stepNumber } from './assemble.ts';
import { runProgram, sizeOf } from './elementwise.ts';

const input = (index: number): Expression => ({ op: 'input', args: [], value: index });

const unaryProgram = (f: (x: Expression) => Expression): Program => compile([f(input(0))], 1);
const binaryProgram = (f: (a: Expression, b: Expression) => Expression): Program => compile([f(input(0), input(1))], 2);

const UNARY: Readonly<Record<string, Program>> = {
  Abs: unaryProgram(expr.abs),
  Erf: unaryProgram(expr.erf),
  Exp: unaryProgram(expr.exp),
  Log: unaryProgram(expr.log),
  Neg: unaryProgram(expr.neg),
  Relu: unaryProgram((x) => expr.max(0, x)),
  Rsqrt: unaryProgram((x) => expr.div(1, expr.sqrt(x))),
  Sigmoid: unaryProgram(expr.sigmoid),
  Sqrt: unaryProgram(expr.sqrt),
  Square: unaryProgram(expr.square),
  Tanh: unaryProgram(expr.tanh),
};

function unary(name: string, program: Program): NativeKernel {
  return (engine, inputs, attributes) => {
    const { x } = inputs;
    if (x?.dtype !== 'float32') return fallback(name)(engine, inputs, attributes);
    return runProgram(engine, program, [x], x.shape);
  };
}

/** An op as a program, and as the interpreter's operation where operands are repeated along axes. */
interface BinaryOp {
  readonly program: Program;
  readonly step?: number;
}

const BINARY: Readonly<Record<string, BinaryOp>> = {
  Add: { program: binaryProgram(expr.add), step: stepNumber('add') },
  Sub: { program: binaryProgram(expr.sub), step: stepNumber('subtract') },
  Multiply: { program: binaryProgram(expr.mul), step: stepNumber('multiply') },
  RealDiv: { program: binaryProgram(expr.div), step: stepNumber('divide') },
  Maximum: { program: binaryProgram(expr.max), step: stepNumber('maximum') },
  Minimum: { program: binaryProgram(expr.min), step: stepNumber('minimum') },
  SquaredDifference: { program: binaryProgram((a, b) => expr.square(expr.sub(a, b))) },
};

/** Whether the operand has the axis at full length; undefined where the result's length is 1 and it does not matter. */
const extents = (shape: readonly number[], result: readonly number[]): (boolean | undefined)[] =>
  result.map((length, axis) => {
    const own = axis - (result.length - shape.length);
    return length === 1 ? undefined : own >= 0 && shape[own] === length;
  });

/** The common value of what is defined; undefined if there are two. */
function common(values: readonly (boolean | undefined)[]): boolean | undefined {
  const distinct = new Set(values.filter((value) => value !== undefined));
  return distinct.size > 1 ? undefined : ([...distinct][0] ?? true);
}

export interface RowsAndColumns {
  readonly rows: number;
  readonly columns: number;
  /** Stride of rows and stride of columns of each operand. */
  readonly strides: readonly (readonly [number, number])[];
}

/**
 * The result as [rows, columns] such that each operand either has all rows or repeats one, and likewise columns; undefined
 * where there is no such view.
 */
export function rowsAndColumns(
  shapes: readonly (readonly number[])[],
  result: readonly number[],
): RowsAndColumns | undefined {
  const operands = shapes.map((shape) => extents(shape, result));
  for (let axis = 0; axis <= result.length; axis++) {
    const columns = sizeOf(result.slice(axis));
    const strides = operands.map((extent) => {
      const [hasRows, hasColumns] = [common(extent.slice(0, axis)), common(extent.slice(axis))];
      if (hasRows === undefined || hasColumns === undefined) return undefined;
      return [hasRows ? (hasColumns ? columns : 1) : 0, hasColumns ? 1 : 0] as const;
    });
    if (strides.every((pair) => pair !== undefined)) return { rows: sizeOf(result.slice(0, axis)), columns, strides };
  }
  return undefined;
}

function broadcast(
  engine: Engine,
  step: number,
  operands: readonly TensorInfo[],
  result: readonly number[],
): TensorInfo | undefined {
  const view = rowsAndColumns(
    operands.map(({ shape }) => shape),
    result,
  );
  if (view === undefined) return undefined;
  const output = engine.allocate(result);
  engine.run('LlmxBroadcast', [...operands, output], [step, view.rows, view.columns, ...view.strides.flat()]);
  return output;
}

function binary(name: string, { program, step }: BinaryOp): NativeKernel {
  return (engine, inputs, attributes) => {
    const [a, b] = [inputs['a']!, inputs['b']!];
    if (a.dtype !== 'float32' || b.dtype !== 'float32') return fallback(name)(engine, inputs, attributes);
    const shape = tf.backend_util.assertAndGetBroadcastShape(a.shape, b.shape);
    const size = sizeOf(shape);
    const isPlain = [a, b].every((info) => [1, size].includes(sizeOf(info.shape)));
    if (isPlain) return runProgram(engine, program, [a, b], shape);
    const output = step === undefined ? undefined : broadcast(engine, step, [a, b], shape);
    return output === undefined ? fallback(name)(engine, inputs, attributes) : [output];
  };
}

export const binaryKernels: Readonly<Record<string, NativeKernel>> = {
  ...Object.fromEntries(Object.entries(UNARY).map(([name, program]) => [name, unary(name, program)])),
  ...Object.fromEntries(Object.entries(BINARY).map(([name, op]) => [name, binary(name, op)])),
};
