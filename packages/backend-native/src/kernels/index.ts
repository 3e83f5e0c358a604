import type { NativeKernel } from '../engine.ts';
import { attentionKernels } from './attention.ts';
import { binaryKernels } from './binary.ts';
import { causalConvolutionKernels } from './causal-convolution.ts';
import { crossEntropyKernels } from './cross-entropy.ts';
import { elementwiseKernels } from './elementwise.ts';
import { embeddingKernels } from './embedding.ts';
import { layoutKernels } from './layout.ts';
import { matmulKernels } from './matmul.ts';
import { normKernels } from './norm.ts';
import { reduceKernels } from './reduce.ts';
import { rotaryKernels } from './rotary.ts';
import { softmaxKernels } from './softmax.ts';

/** Every kernel that this package brings, by its TensorFlow.js name. */
export const KERNELS: Readonly<Record<string, NativeKernel>> = {
  ...attentionKernels,
  ...binaryKernels,
  ...causalConvolutionKernels,
  ...crossEntropyKernels,
  ...elementwiseKernels,
  ...embeddingKernels,
  ...layoutKernels,
  ...matmulKernels,
  ...normKernels,
  ...reduceKernels,
  ...rotaryKernels,
  ...softmaxKernels,
};
