/**
 * Elementwise programs as native/kernels/elementwise.cpp runs them: values that do not depend on the element computed
 * beforehand, products and sums fused, results in as few registers as possible or directly in the outputs.
 */
import { type Instruction, LlmxError, type Operation, type Program } from '@llmx/core';

/** Operations of the interpreter, numbered as in native/kernels/operations.h. */
const STEPS = [
  'copy',
  'abs',
  'sign',
  'square',
  'sqrt',
  'exp',
  'log',
  'tanh',
  'sigmoid',
  'softplus',
  'erf',
  'add',
  'subtract',
  'multiply',
  'divide',
  'minimum',
  'maximum',
  'greater',
  'multiplyAdd',
  'multiplySubtract',
  'subtractMultiply',
  'select',
  'addSquare',
  'addRoot',
] as const;
type StepName = (typeof STEPS)[number];

export const stepNumber = (name: StepName): number => STEPS.indexOf(name);

/** In float64. An operation without an entry is left to the interpreter. */
const FOLD: Partial<Record<Operation, (...operands: number[]) => number>> = {
  negate: (x) => -x,
  abs: Math.abs,
  sign: Math.sign,
  float32: Math.fround,
  square: (x) => x * x,
  sqrt: Math.sqrt,
  exp: Math.exp,
  log: Math.log,
  tanh: Math.tanh,
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  divide: (a, b) => a / b,
  minimum: Math.min,
  maximum: Math.max,
  greater: (a, b) => (a > b ? 1 : 0),
  select: (condition, a, b) => (condition !== 0 ? a : b),
};

/** An operation on results of instructions, by their index in the program. */
interface Step {
  readonly name: StepName;
  /** The interpreter's operands a, b, c and d. */
  readonly operands: readonly [number, number, number, number];
  /** The instruction whose result it computes. */
  readonly result: number;
}

/** Where a value lies, as the interpreter numbers them. */
type Place = { readonly kind: 'input' | 'output' | 'register' | 'uniform'; readonly index: number };

/** An assembled program: the kernel's numbers after the first. */
export interface Assembled {
  /** inputs, outputs, registers, steps, and the steps. */
  readonly header: readonly number[];
  /** What follows: values that do not depend on the element, given the scalars. */
  readonly uniforms: (scalars: readonly number[]) => number[];
}

/** Instructions that are computed per element. */
function varyingOf({ instructions }: Program): boolean[] {
  const varying: boolean[] = [];
  for (const { op, args } of instructions)
    varying.push(
      op === 'input' ||
        args.some((argument) => varying[argument]) ||
        (op !== 'scalar' && op !== 'constant' && FOLD[op] === undefined),
    );
  return varying;
}

/** A program in the interpreter's terms. */
interface Prepared extends Program {
  /** Instructions that are computed per element. */
  readonly varying: readonly boolean[];
  /** The instruction that is the constant 1. */
  readonly unit: number;
  /** Results that are wanted in float32, not as part of a sum. */
  readonly exact: ReadonlySet<number>;
}

/**
 * Products in place of negations, and of divisions by a value that does not depend on the element: the reciprocal is taken
 * once, in float64, and a factor costs next to nothing.
 */
function prepare(program: Program): Prepared {
  const varying = varyingOf(program);
  const instructions: Instruction[] = [];
  const push = (op: Operation, args: readonly number[], value = 0): number =>
    instructions.push({ op, args, value }) - 1;
  const [unit, minusOne] = [push('constant', [], 1), push('constant', [], -1)];
  const moved: number[] = [];
  const exact = new Set<number>();
  program.instructions.forEach(({ op, args, value }, index) => {
    const [a, b, c] = args.map((argument) => moved[argument]!) as [number, number, number];
    if (varying[index] && op === 'float32') {
      exact.add(a);
      moved.push(a);
    } else if (varying[index] && op === 'negate') moved.push(push('multiply', [a, minusOne]));
    else if (varying[index] && op === 'divide' && !varying[args[1]!])
      moved.push(push('multiply', [a, push('divide', [unit, b])]));
    else moved.push(push(op, [a, b, c].slice(0, args.length), value));
  });
  const prepared = { ...program, instructions, outputs: program.outputs.map((output) => moved[output]!) };
  return { ...prepared, varying: varyingOf(prepared), unit, exact };
}

/** How often each result is used, as an operand or an output. */
function usesOf({ instructions, outputs }: Program): number[] {
  const uses = instructions.map(() => 0);
  for (const index of [...outputs, ...instructions.flatMap(({ args }) => args)]) uses[index]!++;
  return uses;
}

type Part = Pick<Step, 'name' | 'operands'>;

/**
 * The steps, in the program's order. A product, square or root that is used once, by an operation that takes it with a factor or
 * adds it, becomes part of that operation's step.
 */
class StepBuilder {
  readonly #program: Prepared;
  readonly #uses: readonly number[];
  /** Instructions that are part of another one's step. */
  readonly #absorbed = new Set<number>();

  constructor(program: Prepared) {
    this.#program = program;
    this.#uses = usesOf(program);
  }

  build(): Step[] {
    const { instructions, varying } = this.#program;
    const steps: Step[] = [];
    // Results before what they are made of: what becomes part of a step must not take its own operands in as well.
    for (let result = instructions.length - 1; result >= 0; result--) {
      const { op, args } = instructions[result]!;
      if (varying[result] && op !== 'input' && !this.#absorbed.has(result))
        steps.push({ ...this.#step(op, args), result });
    }
    return steps.toReversed();
  }

  #step(op: Operation, args: readonly number[]): Part {
    const { varying, unit } = this.#program;
    const [a, b, c] = args as [number, number, number];
    if (op === 'add') return this.#productSum('multiplyAdd', 'multiplyAdd', a, b) ?? this.#sum(a, b);
    if (op === 'subtract')
      return this.#productSum('multiplySubtract', 'subtractMultiply', a, b) ?? this.#pair(op, a, b);
    if (op === 'select') return { name: op, operands: [a, b, c, unit] };
    if (op === 'multiply' && args.some((argument) => !varying[argument])) {
      const [x, factor] = orderFactors(args, varying);
      return { name: 'copy', operands: [x, x, factor, unit] };
    }
    if (args.length === 2) return this.#pair(op as StepName, a, b);
    const [x, factor] = this.#scaled(a);
    return { name: op as StepName, operands: [x, x, factor, unit] };
  }

  /** A product of two that depend on the element, and another term; `a` is the product for `first`, else `b`. */
  #productSum(first: StepName, second: StepName, a: number, b: number): Part | undefined {
    const [product, other] = this.#isProduct(a, 2) ? [a, b] : [b, a];
    if (!this.#isProduct(product, 2)) return undefined;
    this.#absorbed.add(product);
    const [x, y] = this.#program.instructions[product]!.args as [number, number];
    return { name: product === a ? first : second, operands: [x, y, ...this.#scaled(other)] };
  }

  #sum(a: number, b: number): Part {
    for (const [term, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const root = this.#within(term, 'sqrt');
      if (root !== undefined) return this.#pair('addRoot', root, other);
    }
    const { operands } = this.#pair('add', a, b);
    for (const [x, y, s, t] of [operands, [operands[1], operands[0], operands[3], operands[2]]] as const) {
      const squared = this.#within(y, 'square');
      if (squared !== undefined) return { name: 'addSquare', operands: [x, squared, s, t] };
    }
    return { name: 'add', operands };
  }

  #pair(name: StepName, a: number, b: number): Part {
    const [[x, s], [y, t]] = [this.#scaled(a), this.#scaled(b)];
    return { name, operands: [x, y, s, t] };
  }

  /** The operand and its factor. */
  #scaled(index: number): [number, number] {
    const { instructions, varying, unit } = this.#program;
    if (!this.#isProduct(index, 1)) return [index, unit];
    this.#absorbed.add(index);
    return orderFactors(instructions[index]!.args, varying);
  }

  /** What the function is taken of, if the index names its result and nothing else uses it. */
  #within(index: number, op: Operation): number | undefined {
    if (!this.#isUsedOnce(index, op)) return undefined;
    this.#absorbed.add(index);
    return this.#program.instructions[index]!.args[0];
  }

  #isProduct(index: number, varyingFactors: number): boolean {
    const { instructions, varying } = this.#program;
    const factors = instructions[index]!.args.filter((argument) => varying[argument]);
    return this.#isUsedOnce(index, 'multiply') && factors.length === varyingFactors;
  }

  #isUsedOnce(index: number, op: Operation): boolean {
    const { instructions, varying, exact } = this.#program;
    const isFree = this.#uses[index] === 1 && !exact.has(index) && !this.#absorbed.has(index);
    return isFree && varying[index] === true && instructions[index]!.op === op;
  }
}

/** The factor that depends on the element, then the other. */
const orderFactors = ([a, b]: readonly number[], varying: readonly boolean[]): [number, number] =>
  varying[a!] ? [a!, b!] : [b!, a!];

const copyOf = (index: number, { unit }: Prepared): Step['operands'] => [index, index, unit, unit];

/**
 * Adds steps for outputs that are inputs whose memory an output takes: their values are kept in registers first. Gives the
 * value of each output: an instruction, or the number of such a step.
 */
function keepInputs(program: Prepared, steps: Step[], taken: ReadonlySet<number>): number[] {
  const { instructions, outputs } = program;
  const kept = new Map<number, number>();
  return outputs.map((output) => {
    const { op, value } = instructions[output]!;
    if (op !== 'input' || !taken.has(value)) return output;
    if (!kept.has(output)) {
      kept.set(output, instructions.length + kept.size);
      steps.unshift({ name: 'copy', operands: copyOf(output, program), result: kept.get(output)! });
    }
    return kept.get(output)!;
  });
}

/** Results that are computed directly into an output's memory: no later step may read the input that lies there. */
function directOutputs(
  program: Prepared,
  steps: readonly Step[],
  results: readonly number[],
  overwrite: readonly (number | undefined)[],
): Map<number, Place> {
  const lastRead = new Map<number, number>();
  steps.forEach(({ operands }, position) => {
    for (const operand of operands) {
      const { op, value } = program.instructions[operand] ?? {};
      if (op === 'input') lastRead.set(value!, position);
    }
  });
  const positions = new Map(steps.map(({ result }, position) => [result, position]));
  const places = new Map<number, Place>();
  results.forEach((result, index) => {
    const position = positions.get(result);
    const input = overwrite[index];
    const safe = input === undefined || position! >= (lastRead.get(input) ?? -1);
    if (position !== undefined && safe && !places.has(result)) places.set(result, { kind: 'output', index });
  });
  return places;
}

/** Gives every other result a register, from its step to its last use. */
function assignRegisters(steps: readonly Step[], places: Map<number, Place>): number {
  const lastUse = new Map<number, number>();
  steps.forEach(({ operands }, position) => operands.forEach((operand) => lastUse.set(operand, position)));
  const free: number[] = [];
  let count = 0;
  steps.forEach(({ operands, result }, position) => {
    // An operand's last use frees its register for the result: a step reads each vector before it writes it.
    for (const operand of new Set(operands)) {
      const place = places.get(operand);
      if (place?.kind === 'register' && lastUse.get(operand) === position) free.push(place.index);
    }
    if (result !== -1 && !places.has(result)) places.set(result, { kind: 'register', index: free.pop() ?? count++ });
  });
  return count;
}

/** The values of some instructions that do not depend on the element. */
function uniformValues(
  { instructions, varying }: Prepared,
  wanted: readonly number[],
  scalars: readonly number[],
): number[] {
  const values: number[] = [];
  instructions.forEach(({ op, args, value }, index) => {
    const operands = args.map((argument) => values[argument]!);
    if (op === 'constant') values.push(value);
    else if (op === 'scalar') values.push(scalars[value]!);
    else values.push(varying[index] ? NaN : FOLD[op]!(...operands));
  });
  return wanted.map((index) => values[index]!);
}

/** Locations have nine bits: with the operation, 50 bits of a float64. */
const LOCATIONS = 512;
/** Numbers of the kernel besides steps and uniforms: its size and the header. */
const HEADER_NUMBERS = 5;
const MAX_NUMBERS = 256;

/**
 * @param overwrite for each output, the input whose memory it may be given
 * @throws LlmxError `LLMX_NATIVE_ARGUMENT` if the program is too long
 */
export function assemble(source: Program, overwrite: readonly (number | undefined)[] = []): Assembled {
  const program = prepare(source);
  const steps = new StepBuilder(program).build();
  const results = keepInputs(program, steps, new Set(overwrite.filter((input) => input !== undefined)));
  const places = directOutputs(program, steps, results, overwrite);
  const targets = steps.map(({ result }) => places.get(result));
  // Outputs whose value is computed elsewhere are written last.
  results.forEach((result, index) => {
    if (targets.some((target) => target?.index === index)) return;
    steps.push({ name: 'copy', operands: copyOf(result, program), result: -1 });
    targets.push({ kind: 'output', index });
  });
  const uniforms = placeSources(program, steps, places);
  const registers = assignRegisters(steps, places);
  checkLength(steps.length, uniforms.length);

  const { inputs, outputs } = program;
  const firstRegister = inputs + outputs.length;
  const start = { input: 0, output: inputs, register: firstRegister, uniform: firstRegister + registers };
  const code = steps.map(({ name, operands, result }, position) => {
    const fields = [targets[position] ?? places.get(result)!, ...operands.map((operand) => places.get(operand)!)];
    return fields.reduce((word, { kind, index }) => word * LOCATIONS + start[kind] + index, stepNumber(name));
  });
  return {
    header: [inputs, outputs.length, registers, code.length, ...code],
    uniforms: (scalars) => uniformValues(program, uniforms, scalars),
  };
}

/** Places inputs and the uniforms that steps use; gives the latter's instructions. */
function placeSources(
  { instructions, varying }: Prepared,
  steps: readonly Step[],
  places: Map<number, Place>,
): number[] {
  const used = new Set<number>(steps.flatMap(({ operands }) => operands));
  const uniforms: number[] = [];
  instructions.forEach(({ op, value }, index) => {
    if (op === 'input') places.set(index, { kind: 'input', index: value });
    else if (!varying[index] && used.has(index))
      places.set(index, { kind: 'uniform', index: uniforms.push(index) - 1 });
  });
  return uniforms;
}

function checkLength(steps: number, uniforms: number): void {
  const limit = MAX_NUMBERS - HEADER_NUMBERS;
  if (steps + uniforms <= limit) return;
  throw new LlmxError(
    'LLMX_NATIVE_ARGUMENT',
    `An elementwise program has ${steps} steps and ${uniforms} numbers; at most ${limit} fit together.`,
    { hint: 'Split the function in two.' },
  );
}
