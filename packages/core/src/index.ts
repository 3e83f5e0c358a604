/** The public API: what plugins build on, and what the command line calls. */
export { z } from 'zod';

export { chooseBackend, type ProbedBackend, probeBackends } from './backend/index.ts';
export { builtin } from './builtin.ts';
export { type HostTensors, readSafetensors } from './checkpoint/safetensors.ts';
export { configJsonSchema } from './config/json-schema.ts';
export { durationSchema, stepsOf } from './config/durations.ts';
export { blockPatternSchema, type RunConfig } from './config/schema.ts';
export { starterConfig } from './config/starter.ts';
export { readDatasetJson } from './data/dataset-json.ts';
export {
  makeFolders,
  openDataset,
  prepareDataset,
  type PrepareProgress,
  type PrepareSummary,
  verifyDataset,
} from './data/index.ts';
export * from './errors/index.ts';
export * from './generate/index.ts';
export { crossEntropy, labelsOfView } from './objective/next-token.ts';
export { defineElementwiseOptimizer, elementwiseOptimizer } from './optimizer/elementwise.ts';
export { decayOptions, decayRule } from './optimizer/decay.ts';
export * from './plugin/backend-types.ts';
export * from './plugin/define.ts';
export type { Host } from './plugin/host.ts';
export { type ComponentListing, Registry } from './plugin/registry.ts';
export { resolveConfig, type Resolved } from './plugin/resolve.ts';
export * from './plugin/plugin-types.ts';
export * from './plugin/types.ts';
export type { KernelLimit, KernelRow } from './profile/index.ts';
export * from './run/index.ts';
export { warmupOption, withWarmup } from './schedule/warmup.ts';
export * from './tensor/index.ts';
export type { EvaluationProgress, EvaluationResult } from './train/evaluate.ts';
export { EVALUATION } from './train/forward-context.ts';
export { VERSION } from './version.ts';
