/** Running elementwise programs: as one kernel where the backend has it, else as plain ops. */
import { assert } from '../errors/index.ts';
import type { Expression } from '../plugin/types.ts';
import { customOp, runKernel } from './custom-op.ts';
import { isRecording } from './tape.ts';
import {
  compile,
  derivatives,
  expr,
  inputExpression,
  type Instruction,
  type Program,
  scalarExpression,
} from './expression.ts';
import { at } from './params.ts';
import type { Rounding } from './rounding.ts';
import { tf } from './tf.ts';

type Compute = (args: tf.Tensor[]) => tf.Tensor;

const COMPOSITES: Record<Exclude<Instruction['op'], 'input' | 'scalar' | 'constant'>, Compute> = {
  negate: ([x]) => tf.neg(x!),
  float32: ([x]) => x!,
  abs: ([x]) => tf.abs(x!),
  sign: ([x]) => tf.sign(x!),
  square: ([x]) => tf.square(x!),
  sqrt: ([x]) => tf.sqrt(x!),
  exp: ([x]) => tf.exp(x!),
  log: ([x]) => tf.log(x!),
  tanh: ([x]) => tf.tanh(x!),
  sigmoid: ([x]) => tf.sigmoid(x!),
  softplus: ([x]) => tf.softplus(x!),
  erf: ([x]) => tf.erf(x!),
  add: ([a, b]) => tf.add(a!, b!),
  subtract: ([a, b]) => tf.sub(a!, b!),
  multiply: ([a, b]) => tf.mul(a!, b!),
  divide: ([a, b]) => tf.div(a!, b!),
  minimum: ([a, b]) => tf.minimum(a!, b!),
  maximum: ([a, b]) => tf.maximum(a!, b!),
  greater: ([a, b]) => tf.cast(tf.greater(a!, b!), 'float32'),
  // Selects rather than blends, so that an infinity in the branch not taken does no harm.
  select: ([condition, a, b]) => tf.where(tf.notEqual(condition!, 0), a!, b!),
};

function composite(program: Program, inputs: readonly tf.Tensor[], scalars: readonly number[]): tf.Tensor[] {
  const first = inputs[0]!;
  const results: tf.Tensor[] = [];
  for (const { op, args, value } of program.instructions) {
    if (op === 'input') results.push(inputs[value]!);
    else if (op === 'scalar') results.push(tf.scalar(scalars[value]!));
    else if (op === 'constant') results.push(tf.scalar(value));
    else results.push(COMPOSITES[op](args.map((index) => results[index]!)));
  }
  return program.outputs.map((index) => {
    const output = results[index]!;
    return output.rank < first.rank ? tf.add(tf.zerosLike(first), output) : output.clone();
  });
}

interface ProgramOptions extends Rounding {
  readonly scalars?: readonly number[];
  readonly overwrite?: readonly (number | undefined)[];
}

/**
 * Runs a program over tensors of one shape and scalars, in one pass over memory where the backend has the kernel
 * `LlmxElementwise`. Not recorded for differentiation.
 *
 * @param inputs float32 tensors; the first has the results' shape, the others have it too or are scalars
 * @param options.scalars one number per scalar of the program
 * @param options.overwrite per output, the input whose memory it may take; the caller must not read that input afterwards
 * @returns one tensor of that shape per output
 */
export function runProgram(
  program: Program,
  inputs: readonly tf.Tensor[],
  { scalars = [], overwrite = [], rounded = false }: ProgramOptions = {},
): tf.Tensor[] {
  assert(inputs.length === program.inputs, `The program takes ${program.inputs} tensors, got ${inputs.length}.`);
  assert(scalars.length === program.scalars, `The program takes ${program.scalars} scalars, got ${scalars.length}.`);
  const shape = inputs[0]?.shape.join(',');
  assert(
    inputs.every((input) => input.rank === 0 || input.shape.join(',') === shape),
    'Inputs of a program must have one shape, or be scalars.',
  );
  const named = Object.fromEntries(inputs.map((input, index) => [`${index}`, input]));
  return (
    runKernel('LlmxElementwise', named, { program, scalars, overwrite, rounded }) ??
    tf.tidy(() => composite(program, inputs, scalars))
  );
}

/**
 * A record of tensors to a record of tensors, all of one shape, except that inputs after the first may be scalars. Numbers may
 * change from call to call.
 */
export type ElementwiseFunction = (
  inputs: Readonly<Record<string, tf.Tensor>>,
  scalars?: Readonly<Record<string, number>>,
) => Record<string, tf.Tensor>;

/**
 * An elementwise function with several results, for updates of parameters and the like: one pass over memory where the
 * backend fuses. `f` is called once, with an expression for each name, and gives an expression for each result. Not
 * recorded for differentiation. Results named in `overwrite` may take the memory of the inputs of those names, which the
 * caller then must not read any more, except through other tensors of the same data: those keep it.
 *
 * @example
 * const decayed = elementwise({ inputs: ['p', 'g'], scalars: ['lr'] }, ({ p, g, lr }) => ({ p: sub(p, mul(lr, g)) }));
 * const { p } = decayed({ p: weights, g: gradient }, { lr: 0.1 });
 */
export function elementwise<I extends string, S extends string = never>(
  {
    inputs,
    scalars = [],
    overwrite = [],
  }: { readonly inputs: readonly I[]; readonly scalars?: readonly S[]; readonly overwrite?: readonly I[] },
  f: (expressions: Readonly<Record<I | S, Expression>>) => Readonly<Record<string, Expression>>,
): ElementwiseFunction {
  const named = [
    ...inputs.map((name, index) => [name, inputExpression(index)] as const),
    ...scalars.map((name, index) => [name, scalarExpression(index)] as const),
  ];
  assert(
    new Set(named.map(([name]) => name)).size === named.length,
    `Names must differ: ${[...inputs, ...scalars].join(', ')}.`,
  );
  const results = f(Object.fromEntries(named) as Record<I | S, Expression>);
  const program = compile(Object.values(results), inputs.length, scalars.length);
  const names = Object.keys(results);
  const takenFrom = names.map((name) => (overwrite.includes(name as I) ? inputs.indexOf(name as I) : undefined));
  return (tensors, numbers = {}) => {
    const given = inputs.map((name) => at(tensors, name));
    const values = scalars.map((name) => {
      const value = numbers[name];
      assert(value !== undefined, `The scalar "${name}" is missing.`);
      return value;
    });
    const outputs = runProgram(program, given, { scalars: values, overwrite: takenFrom });
    return Object.fromEntries(names.map((name, index) => [name, outputs[index]!]));
  };
}

/**
 * An elementwise function from a scalar expression: `fuse((x, gate) => mul(x, sigmoid(gate)))` with the functions of
 * `expr`. It is traced once; derivatives are taken symbolically and computed with the value, so that the backward pass
 * is one multiplication per input.
 *
 * @param rounding how the result, what is kept for the backward pass, and gradients are kept
 * @returns a differentiable function of float32 tensors of one shape
 */
export function fuse(
  f: (...inputs: Expression[]) => Expression,
  rounding: Rounding = {},
): (...inputs: tf.Tensor[]) => tf.Tensor {
  const arity = f.length;
  const y = f(...Array.from({ length: arity }, (_, index) => inputExpression(index)));
  const value = compile([y], arity);
  const valueAndDerivatives = compile([y, ...derivatives(y, arity)], arity);
  const scale = compile([expr.mul(inputExpression(0), inputExpression(1))], 2);
  return (...inputs) => {
    if (!isRecording()) return runProgram(value, inputs, rounding)[0]!;
    return customOp(
      inputs,
      (save) => {
        const [result, ...partials] = runProgram(valueAndDerivatives, inputs, rounding);
        save(partials);
        return result!;
      },
      (dy, partials) => partials.map((partial) => runProgram(scale, [dy, partial], rounding)[0]!),
    );
  };
}
