export { checkTraceFile, writeTrace } from './chrome-trace.ts';
export { type KernelLimit, type KernelRow, KernelTotals } from './kernel-totals.ts';
export { measurePeaks } from './peaks.ts';
export { profileSteps } from './profile-steps.ts';
export { type Phase, Recording } from './recording.ts';
