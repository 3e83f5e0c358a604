import { decayOptions, defineOptimizer, LlmxError, z } from '@llmx/core';

import { polyak, steady } from './paces.ts';
import { adaptiveRule, gradientRule, rectification } from './rules.ts';
import { averagingOptions, decayPoint, scheduleFree } from './schedule-free.ts';

const PAPER = 'https://arxiv.org/abs/2405.15682';

const lr = (value: number, hint: string) =>
  z.number().min(0).default(value).describe(`Learning rate, for the whole run; ${hint}.`);
const interpolation = z
  .number()
  .gt(0)
  .lt(1)
  .default(0.9)
  .describe('Where gradients are taken: from the fast iterate (towards 0) to the average (towards 1).');
const secondMoment = {
  beta2: z.number().min(0).lt(1).default(0.999).describe('Decay of the second moment.'),
  epsilon: z.number().positive().default(1e-8),
};
const warmup = {
  warmup: z.int().min(0).default(0).describe('Steps of linear warm-up; they count less in the average.'),
};

export const adamwScheduleFree = defineOptimizer({
  name: 'adamw-schedulefree',
  summary: 'AdamW without a schedule; two buffers per parameter.',
  paper: PAPER,
  config: z.strictObject({
    lr: lr(0.0025, '1 to 10 times the peak of a scheduled run'),
    beta1: interpolation,
    ...secondMoment,
    innerMomentum: z.number().min(0).lt(1).default(0).describe('Momentum of the base besides; costs one more buffer.'),
    ...decayOptions(0),
    ...warmup,
    ...averagingOptions,
    ...decayPoint,
  }),
  build: (options) => scheduleFree(adaptiveRule(options), steady({ ...options, beta: options.beta1 }), options.decayAt),
});

export const sgdScheduleFree = defineOptimizer({
  name: 'sgd-schedulefree',
  summary: 'Gradient descent without a schedule; one buffer per parameter.',
  paper: PAPER,
  config: z.strictObject({
    lr: lr(1, '10 to 50 times the peak of a scheduled run'),
    momentum: interpolation,
    ...decayOptions(0),
    ...warmup,
    ...averagingOptions,
    ...decayPoint,
  }),
  build: (options) =>
    scheduleFree(gradientRule(options), steady({ ...options, beta: options.momentum }), options.decayAt),
});

export const radamScheduleFree = defineOptimizer({
  name: 'radam-schedulefree',
  summary: 'Rectified Adam without a schedule, and without warm-up; two buffers per parameter.',
  paper: PAPER,
  config: z.strictObject({
    lr: lr(0.0025, '1 to 10 times the peak of a scheduled run'),
    beta1: interpolation,
    ...secondMoment,
    silentPhase: z
      .boolean()
      .default(true)
      .describe(
        'Whether the first steps, whose second moment means nothing yet, move nothing; else they follow the gradient.',
      ),
    ...decayOptions(0),
    ...averagingOptions,
    ...decayPoint,
  }),
  build(options) {
    const { beta1, beta2, silentPhase } = options;
    const isAdaptive = (step: number) => rectification(beta2, step) !== undefined;
    const lrFactor = (step: number) => rectification(beta2, step) ?? (silentPhase ? 0 : 1);
    const pace = steady({ ...options, beta: beta1, warmup: 0 }, lrFactor);
    return scheduleFree(adaptiveRule({ ...options, innerMomentum: 0, isAdaptive }), pace, options.decayAt);
  },
});

export const adamcScheduleFreePlus = defineOptimizer({
  name: 'adamc-schedulefree-plus',
  summary: 'ScheduleFree+: no learning rate either, but Polyak steps from the loss; three buffers per parameter.',
  paper: 'https://arxiv.org/abs/2605.19095',
  config: z.strictObject({
    lr: lr(1, 'a multiple of the Polyak step, rarely changed'),
    beta1: z.number().min(0).lt(1).default(0.9).describe('Decay of the first moment.'),
    beta2: z.number().min(0).lt(1).default(0.95).describe('Decay of the second moment.'),
    epsilon: z.number().positive().default(1e-8),
    sfBeta: interpolation,
    sfBetaMax: z.number().gt(0).lt(1).default(0.965).describe('Where sfBeta goes.'),
    sfBetaAnnealSteps: z.int().min(0).default(0).describe('Steps in which it goes there; 0: it stays.'),
    polyakBeta: z.number().min(0).lt(1).default(0).describe('Decay of the moving average of the gradient norm.'),
    averageWarmup: z
      .int()
      .min(0)
      .default(0)
      .describe('Steps in which the average is the fast iterate; once or twice the warm-up.'),
    ...decayOptions(0),
    ...averagingOptions,
  }),
  build: (options) => scheduleFree(adaptiveRule({ ...options, innerMomentum: options.beta1 }), polyak(options), 'y'),
});

export const scheduleFreeWrapper = defineOptimizer({
  name: 'schedule-free',
  summary: 'Any optimizer whose update is a direction per element, made schedule-free; one more buffer per parameter.',
  paper: PAPER,
  config: z.strictObject({
    lr: lr(0.0025, 'that of the base is not used'),
    base: z.looseObject({ name: z.string() }).describe('The optimizer inside, as { name, ...options }.'),
    beta: interpolation,
    ...warmup,
    ...averagingOptions,
    ...decayPoint,
  }),
  build({ base, ...options }, { create }) {
    const { elementwise: rule } = create('optimizer', base, {});
    if (rule === undefined)
      throw new LlmxError(
        'LLMX_CONFIG_INVALID',
        `The optimizer "${base.name}" does not declare a direction, which schedule-free needs.`,
        {
          hint: 'Choose a base defined with defineElementwiseOptimizer, such as adamw, lion or sgd.',
        },
      );
    return scheduleFree(rule, steady(options), options.decayAt);
  },
});
