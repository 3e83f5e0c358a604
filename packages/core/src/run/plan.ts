import { stepsOf, tokensOf } from '../config/durations.ts';
import type { RunConfig } from '../config/schema.ts';
import { LlmxError } from '../errors/index.ts';
import type { Registry } from '../plugin/registry.ts';
import type { LoopPlan } from '../train/loop.ts';

/** Everything the configuration says in durations, in steps. */
export interface RunPlan extends LoopPlan {
  /** Checkpoints of multiples of this stay for good; 0: none. */
  readonly keepEvery: number;
}

/**
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function planRun(registry: Registry, config: RunConfig): RunPlan {
  const { train, model, optimizer } = config;
  const tokensPerStep = train.batchSize * train.gradAccumulation * model.contextLength;
  const scheduled = stepsOf(train.steps, { tokensPerStep });
  const steps = (duration: number | string): number => stepsOf(duration, { tokensPerStep, totalSteps: scheduled });
  const schedule = registry.create('schedule', config.schedule, { steps });
  const { lr } = optimizer as { lr?: unknown };
  if (typeof lr !== 'number')
    throw new LlmxError('LLMX_PLUGIN_INVALID', `The optimizer "${optimizer.name}" has no option lr of type number.`);
  const limit = train.tokens === undefined ? Infinity : Math.ceil(tokensOf(train.tokens) / tokensPerStep);
  return {
    totalSteps: Math.min(scheduled, limit),
    tokensPerStep,
    gradAccumulation: train.gradAccumulation,
    guard: train.guard,
    logEvery: train.logEvery,
    evalEvery: steps(train.evalEvery),
    checkpointEvery: steps(train.checkpointEvery),
    keepEvery: steps(train.keepEvery),
    learningRate: (step) => lr * schedule({ step, tokens: (step - 1) * tokensPerStep, totalSteps: scheduled }),
  };
}
