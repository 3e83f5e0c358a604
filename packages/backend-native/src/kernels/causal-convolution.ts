import { requireShape } from '../check.ts';
import type { NativeKernel } from '../engine.ts';

/** x and weight, checked, and the numbers of the C++ kernels. */
function readInputs(kernel: string, inputs: Parameters<NativeKernel>[1]) {
  const x = requireShape(kernel, 'x', inputs['x'], [undefined, undefined, undefined]);
  const [batch, time, channels] = x.shape as [number, number, number];
  const weight = requireShape(kernel, 'weight', inputs['weight'], [undefined, channels]);
  const [taps] = weight.shape as [number, number];
  return { x, weight, channels, numbers: [batch, time, channels, taps] };
}

/**
 * Causal depthwise convolution over time; see core's `causalConvolution`.
 *
 * Inputs: x float32 [batch, time, channels], weight [taps, channels], bias [channels] or none. Result: y, like x.
 */
const causalConvolution: NativeKernel = (engine, inputs) => {
  const kernel = 'LlmxCausalConvolution';
  const { x, weight, channels, numbers } = readInputs(kernel, inputs);
  const bias = inputs['bias'] && requireShape(kernel, 'bias', inputs['bias'], [channels]);
  const y = engine.allocate(x.shape);
  engine.run(kernel, [x, weight, bias, y], numbers);
  return [y];
};

/** Inputs: dy, x, weight. Results: dx, dWeight, dBias. */
const causalConvolutionGrad: NativeKernel = (engine, inputs) => {
  const kernel = 'LlmxCausalConvolutionGrad';
  const { x, weight, channels, numbers } = readInputs(kernel, inputs);
  const dy = requireShape(kernel, 'dy', inputs['dy'], x.shape);
  const results = [engine.allocate(x.shape), engine.allocate(weight.shape), engine.allocate([channels])];
  engine.run(kernel, [dy, x, weight, ...results], numbers);
  return results;
};

export const causalConvolutionKernels: Readonly<Record<string, NativeKernel>> = {
  LlmxCausalConvolution: causalConvolution,
  LlmxCausalConvolutionGrad: causalConvolutionGrad,
};
