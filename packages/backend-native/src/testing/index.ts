/** For tests of C++ kernels, the engine's and those of plugins: against their scalar form and finite differences. Uses vitest. */
export { expectClose, type Tolerance, values } from './compare.ts';
export { expectGradient, expectLevelsAgree, type KernelCase, resultsOf, sizeOf } from './kernel-case.ts';
export { type Argument, argument, describeKernels, type RunOptions } from './kernels.ts';
