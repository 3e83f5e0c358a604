import type { Instruction, Program } from '../../tensor/index.ts';
import { erf } from './erf.ts';
import { floats, type Kernel } from './storage.ts';

type Loop = (inputs: Float32Array[], scalars: readonly number[], outputs: Float32Array[], length: number) => void;

const call = (name: string) => (args: string[]) => `Math.${name}(${args.join(', ')})`;
const infix = (operator: string) => (args: string[]) => args.join(` ${operator} `);

/** JavaScript for each operation on the names of its arguments. Arithmetic is in float64; results are rounded once. */
const SOURCE: Record<Exclude<Instruction['op'], 'input' | 'scalar' | 'constant'>, (args: string[]) => string> = {
  negate: ([x]) => `-${x}`,
  float32: call('fround'),
  abs: call('abs'),
  sign: call('sign'),
  square: ([x]) => `${x} * ${x}`,
  sqrt: call('sqrt'),
  exp: call('exp'),
  log: call('log'),
  tanh: call('tanh'),
  sigmoid: ([x]) => `1 / (1 + Math.exp(-${x}))`,
  softplus: ([x]) => `Math.max(${x}, 0) + Math.log1p(Math.exp(-Math.abs(${x})))`,
  erf: ([x]) => `erf(${x})`,
  add: infix('+'),
  subtract: infix('-'),
  multiply: infix('*'),
  divide: infix('/'),
  minimum: call('min'),
  maximum: call('max'),
  greater: ([a, b]) => `${a} > ${b} ? 1 : 0`,
  select: ([condition, a, b]) => `${condition} !== 0 ? ${a} : ${b}`,
};

/** A JavaScript number literal that reads back as the same value. */
const literal = (value: number): string => (Object.is(value, -0) ? '-0' : String(value));

/** Writes the program as one loop. What does not depend on the element stands before it, as inputs do that are `single`. */
function source(program: Program, single: readonly boolean[]): string {
  const varying: boolean[] = [];
  const [before, inside]: [string[], string[]] = [[], []];
  program.instructions.forEach(({ op, args, value }, index) => {
    varying.push((op === 'input' && !single[value]!) || args.some((argument) => varying[argument]));
    const names = args.map((argument) => `r${argument}`);
    const expression =
      op === 'input'
        ? `in${value}[${single[value]! ? 0 : 'i'}]`
        : op === 'scalar'
          ? `scalars[${value}]`
          : op === 'constant'
            ? literal(value)
            : SOURCE[op](names);
    (varying[index] ? inside : before).push(`const r${index} = ${expression};`);
  });
  const arrays = [
    ...Array.from({ length: program.inputs }, (_, index) => `const in${index} = inputs[${index}];`),
    ...program.outputs.map((_, index) => `const out${index} = outputs[${index}];`),
  ];
  const stores = program.outputs.map((result, index) => `out${index}[i] = r${result};`);
  return [...arrays, ...before, 'for (let i = 0; i < length; i++) {', ...inside, ...stores, '}'].join('\n');
}

/** By which inputs are scalars. */
const loops = new WeakMap<Program, Map<string, Loop>>();

/** The program as machine code, by way of JavaScript's own compiler: one pass over memory, whatever its length. */
function loopOf(program: Program, single: readonly boolean[]): Loop {
  let forms = loops.get(program);
  if (forms === undefined) loops.set(program, (forms = new Map<string, Loop>()));
  const key = single.join();
  const known = forms.get(key);
  if (known !== undefined) return known;
  // The text is made of the fixed operation table and numbers only, so nothing foreign can get into it.
  // oxlint-disable-next-line no-implied-eval
  const make = new Function('erf', `return (inputs, scalars, outputs, length) => {\n${source(program, single)}\n};`);
  const loop = (make as (erfFunction: typeof erf) => Loop)(erf);
  forms.set(key, loop);
  return loop;
}

/** `LlmxElementwise`: inputs `0`, `1`, ... of one shape, or scalars after the first; attributes `program` and `scalars`. */
export const elementwise: Kernel = (storage, inputs, attributes) => {
  const { program, scalars } = attributes as { program: Program; scalars: readonly number[] };
  const infos = Array.from({ length: program.inputs }, (_, index) => inputs[index]!);
  const outputs = program.outputs.map(() => storage.allocate(infos[0]!.shape));
  const views = outputs.map((info) => floats(storage, info));
  const single = infos.map(({ shape }, index) => index > 0 && shape.length === 0);
  loopOf(program, single)(
    infos.map((info) => floats(storage, info)),
    scalars,
    views,
    views[0]!.length,
  );
  return outputs;
};
