import { requireShape } from '../check.ts';
import type { NativeKernel } from '../engine.ts';

/**
 * `x` [rows, width], `weight` [width], `bias` [width] or none, to y [rows, width], mean [rows] and scale [rows]. With the attribute
 * `rounded` y is for products alone: see `allocateRounded`.
 */
const norm: NativeKernel = (engine, inputs, attributes) => {
  const { epsilon, center, rounded } = attributes as { epsilon: number; center: boolean; rounded?: boolean };
  const x = requireShape('LlmxNorm', 'x', inputs['x'], [undefined, undefined]);
  const [rows, width] = x.shape as [number, number];
  const weight = requireShape('LlmxNorm', 'weight', inputs['weight'], [width]);
  const bias = inputs['bias'] && requireShape('LlmxNorm', 'bias', inputs['bias'], [width]);
  const y = rounded === true ? engine.allocateRounded(x.shape) : engine.allocate(x.shape);
  const outputs = [y, engine.allocate([rows]), engine.allocate([rows])];
  engine.run('LlmxNorm', [x, weight, bias, ...outputs], [rows, width, epsilon, Number(center)], [3]);
  return outputs;
};

/**
 * Gradients of x [rows, width], weight [width] and bias [width]. `residual` [rows, width], if given, is added to the first,
 * in its own memory where nobody else refers to it.
 */
const normGrad: NativeKernel = (engine, inputs, attributes) => {
  const { center } = attributes as { center: boolean };
  const dy = requireShape('LlmxNormGrad', 'dy', inputs['dy'], [undefined, undefined]);
  const [rows, width] = dy.shape as [number, number];
  const need = (name: string, ...shape: number[]) => requireShape('LlmxNormGrad', name, inputs[name], shape);
  const [x, weight, mean, scale] = [
    need('x', rows, width),
    need('weight', width),
    need('mean', rows),
    need('scale', rows),
  ];
  const residual = inputs['residual'] && need('residual', rows, width);
  const isFree = residual !== undefined && residual.dataId !== x.dataId && engine.isSoleOwner(residual);
  const dx = isFree ? engine.share(residual) : engine.allocate([rows, width]);
  const [dWeight, dBias] = [engine.allocate([width]), engine.allocate([width])];
  engine.run('LlmxNormGrad', [dy, x, weight, mean, scale, residual, dx, dWeight, dBias], [rows, width, Number(center)]);
  return [dx, dWeight, dBias];
};

export const normKernels: Readonly<Record<string, NativeKernel>> = { LlmxNorm: norm, LlmxNormGrad: normGrad };
