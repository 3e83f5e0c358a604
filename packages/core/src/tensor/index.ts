export { differentiate, differentiateParams, recomputed, staged, takeGradient } from './differentiate.ts';
export { customOp, hasKernel, runKernel } from './custom-op.ts';
export { dims } from './dims.ts';
export { accumulated, scaled, sumOfSquares } from './in-place.ts';
export { elementwise, type ElementwiseFunction, fuse, runProgram } from './elementwise.ts';
export {
  compile,
  derivatives,
  expr,
  type Instruction,
  type Operation,
  OPERATIONS,
  type Program,
} from './expression.ts';
export { at, mapParams, prefixed, scoped, stateTensors } from './params.ts';
export { keyedRng, philox, philoxWords, randomKey, type RandomKey, uniformValues } from './rng.ts';
export { gelu, silu, swiglu } from './ops/activation.ts';
export { type AttentionOptions, causalAttention } from './ops/attention.ts';
export { causalConvolution } from './ops/causal-convolution.ts';
export { type CrossEntropyOptions, linearCrossEntropy } from './ops/cross-entropy.ts';
export { embedding } from './ops/embedding.ts';
export { type AffineMap, geluFeedForward } from './ops/feed-forward.ts';
export { linear, type LinearOptions } from './ops/linear.ts';
export { matmul, type MatmulOptions } from './ops/matmul.ts';
export { layerNorm, rmsNorm } from './ops/norm.ts';
export { rotary, type RotaryOptions, rotation } from './ops/rotary.ts';
export type { Rounding } from './rounding.ts';
export { isDifferentiated, isRecording, unrecorded } from './tape.ts';
export { tf } from './tf.ts';
