import type { Metrics } from '../plugin/types.ts';
import type { EvaluationProgress, EvaluationResult } from '../train/evaluate.ts';

/** What happens in a run, for whoever shows it. */
export type TrainEvent =
  | {
      readonly kind: 'started';
      readonly directory: string;
      /** Steps done already. */
      readonly step: number;
      readonly totalSteps: number;
      readonly tokensPerStep: number;
      /** Number of trained values. */
      readonly parameters: number;
      /** Windows in one pass over the training split. */
      readonly windowsPerEpoch: number;
      readonly backend: string;
    }
  | { readonly kind: 'step'; readonly step: number }
  | { readonly kind: 'logged'; readonly step: number; readonly metrics: Metrics }
  | { readonly kind: 'evaluating'; readonly step: number; readonly progress: EvaluationProgress }
  | { readonly kind: 'evaluated'; readonly step: number; readonly result: EvaluationResult }
  | { readonly kind: 'saved'; readonly step: number; readonly directory: string };
