import { describeArchitecture, describeBlock } from '@llmx/core/testing';

import plugin from './index.ts';

describeBlock({ plugin, name: 'mlstm', options: [{}, { heads: 2, chunk: 4, projectionFactor: 1, taps: 2 }] });
describeBlock({ plugin, name: 'mlstm-large', options: [{}, { heads: 2, chunk: 4, keyFactor: 0.75, gateCap: 3 }] });
describeBlock({ plugin, name: 'slstm', options: [{}, { heads: 2, taps: 3 }] });
describeArchitecture({
  plugin,
  name: 'xlstm',
  options: [
    { dModel: 32, depth: 2, heads: 2, ratio: [1, 1], chunk: 3 },
    { dModel: 32, depth: 2, heads: 2, slstmAt: [], tieEmbeddings: true },
  ],
});
