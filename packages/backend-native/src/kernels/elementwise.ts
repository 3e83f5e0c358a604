import { type Program } from '@llmx/core';

import { requireShape } from '../check.ts';
import type { Engine, NativeKernel, TensorInfo } from '../engine.ts';
import { type Assembled, assemble } from './assemble.ts';

type Overwrite = readonly (number | undefined)[];

interface ProgramOptions {
  readonly scalars?: readonly number[];
  readonly overwrite?: Overwrite;
  readonly rounded?: boolean;
}

/** Programs as assembled before, by what they may overwrite. */
const assembled = new WeakMap<Program, Map<string, Assembled>>();

function assembledOnce(program: Program, overwrite: Overwrite): Assembled {
  let forms = assembled.get(program);
  if (forms === undefined) assembled.set(program, (forms = new Map<string, Assembled>()));
  const key = overwrite.join(' ');
  let form = forms.get(key);
  if (form === undefined) forms.set(key, (form = assemble(program, overwrite)));
  return form;
}

/** The product of the lengths. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** The input whose memory an output takes: one that nobody else refers to, neither another input nor an earlier output. */
function taken(
  engine: Engine,
  inputs: readonly TensorInfo[],
  overwrite: Overwrite,
  index: number,
): TensorInfo | undefined {
  const input = overwrite[index];
  if (input === undefined || overwrite.indexOf(input) !== index) return undefined;
  const info = inputs[input]!;
  const isGivenOnce = inputs.every((other, position) => position === input || other.dataId !== info.dataId);
  return isGivenOnce && engine.isSoleOwner(info) ? info : undefined;
}

/**
 * Runs a program over float32 tensors of `shape`, or of one element, which then stands for all.
 *
 * @param options.overwrite for each output, the input whose memory it may take
 * @param options.rounded whether results are for products alone: see `allocateRounded`
 */
export function runProgram(
  engine: Engine,
  program: Program,
  inputs: readonly TensorInfo[],
  shape: readonly number[],
  { scalars = [], overwrite = [], rounded = false }: ProgramOptions = {},
): TensorInfo[] {
  const { header, uniforms } = assembledOnce(program, overwrite);
  const outputs = program.outputs.map((_, index) => {
    const place = taken(engine, inputs, overwrite, index);
    if (place !== undefined) return engine.share(place, shape);
    return rounded ? engine.allocateRounded(shape) : engine.allocate(shape);
  });
  const tensors = [...inputs, ...outputs];
  const all = tensors.map((_, index) => index);
  engine.run('LlmxElementwise', tensors, [sizeOf(shape), ...header, ...uniforms(scalars)], all);
  return outputs;
}

interface ElementwiseAttributes extends ProgramOptions {
  readonly program: Program;
}

/** Inputs `0`, `1`, ... of one shape, or scalars after the first; one result of that shape per output of the program. */
const elementwise: NativeKernel = (engine, inputs, attributes) => {
  const { program, ...options } = attributes as unknown as ElementwiseAttributes;
  const shape = inputs['0']?.shape ?? [];
  const infos = Array.from({ length: program.inputs }, (_, index) => {
    const info = inputs[`${index}`];
    return requireShape('LlmxElementwise', `input ${index}`, info, info?.shape.length === 0 ? [] : shape);
  });
  return runProgram(engine, program, infos, shape, options);
};

export const elementwiseKernels: Readonly<Record<string, NativeKernel>> = { LlmxElementwise: elementwise };
