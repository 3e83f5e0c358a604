export { type AddedTestBackend, TEST_BACKENDS, useBackend } from './backends.ts';
export { expectClose, largestDifference, largestMagnitude } from './close.ts';
export { describeArchitecture } from './describe-architecture.ts';
export { describeBlock } from './describe-block.ts';
export { describeObjective } from './describe-objective.ts';
export { describeOptimizer } from './describe-optimizer.ts';
export { expectGradients, type GradientCheck } from './gradients.ts';
export type { Subject } from './subject.ts';
export { dispatchedKernels, expectKernelCoverage } from './kernel-coverage.ts';
