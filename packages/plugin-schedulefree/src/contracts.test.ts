import { describeOptimizer } from '@llmx/core/testing';

import plugin from './index.ts';

describeOptimizer({
  plugin,
  name: 'adamw-schedulefree',
  options: [{}, { innerMomentum: 0.9, warmup: 3, weightDecay: 0.01 }],
});
describeOptimizer({ plugin, name: 'sgd-schedulefree', options: [{}, { r: 1, weightLrPower: 0, decayAt: 'z' }] });
describeOptimizer({
  plugin,
  name: 'radam-schedulefree',
  options: [{ beta2: 0.95 }, { beta2: 0.95, silentPhase: false }],
});
describeOptimizer({ plugin, name: 'schedule-free', options: [{ base: { name: 'adamw', weightDecay: 0 } }] });
// With Lion's default of a hundred steps of momentum the average circles the minimum.
describeOptimizer({ plugin, name: 'schedule-free', options: [{ base: { name: 'lion', beta2: 0.9, weightDecay: 0 } }] });
// On a problem of eight values a whole Polyak step overshoots.
describeOptimizer({
  plugin,
  name: 'adamc-schedulefree-plus',
  options: [{}, { sfBetaAnnealSteps: 4, polyakBeta: 0.5, averageWarmup: 2, weightDecay: 0.1 }],
  lr: 0.5,
});
