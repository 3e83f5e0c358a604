import { describeOptimizer } from '../testing/index.ts';

describeOptimizer({ name: 'adamw', options: [{ weightDecay: 0 }, { weightDecay: 0.01, decay: 'all' }] });
describeOptimizer({ name: 'lion', options: [{ weightDecay: 0 }], lr: 0.01 });
describeOptimizer({ name: 'sgd', options: [{}, { momentum: 0.9 }, { momentum: 0.9, nesterov: true }] });
