export {
  assembleBatch,
  bytesOfTargets,
  evaluationWindows,
  type Packing,
  requireWindows,
  type TrainingBatches,
  trainingBatches,
  windowCount,
} from './batches.ts';
export { makeFolders } from './files.ts';
export { openDataset, verifyDataset } from './llmx-tokens.ts';
export { prepareDataset, type PrepareProgress, type PrepareSummary } from './prepare.ts';
