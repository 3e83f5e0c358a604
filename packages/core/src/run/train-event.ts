import type { Metrics } from '../plugin/types.ts';
import type { EvaluationProgress, EvaluationResult } from '../train/evaluate.ts';
import type { InitialWeights } from './initial-weights.ts';

/** What happens in a run, for whoever shows it. */
export type TrainEvent =
  | {
      readonly kind: 'started';
      readonly directory: string;
      /** Steps done already. */
      readonly step: number;
      readonly totalSteps: number;
      readonly tokensPerStep: number;
      /** Number of trained values, and of those that are frozen. */
      readonly parameters: number;
      readonly frozen: number;
      /** Where the first weights came from; absent where they are random, or the run goes on. */
      readonly initialised?: Omit<InitialWeights, 'tensors'>;
      /** Windows in one pass over the training split. */
      readonly windowsPerEpoch: number;
      readonly backend: string;
    }
  | { readonly kind: 'step'; readonly step: number }
  | { readonly kind: 'logged'; readonly step: number; readonly metrics: Metrics }
  | { readonly kind: 'evaluating'; readonly step: number; readonly progress: EvaluationProgress }
  | { readonly kind: 'evaluated'; readonly step: number; readonly result: EvaluationResult }
  /** Text that the model wrote, as `train.sample` asks. */
  | { readonly kind: 'sampled'; readonly step: number; readonly prompt: string; readonly text: string }
  | { readonly kind: 'saved'; readonly step: number; readonly directory: string };
