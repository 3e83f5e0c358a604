import { describeArchitecture, describeBlock } from '../testing/index.ts';

const gpt2 = {};
const llama = { norm: 'rmsnorm', positions: 'rotary', activation: 'swiglu', bias: false, kvHeads: 2 };

describeBlock({ name: 'attention', options: [gpt2, llama, { heads: 2, window: 3, positions: 'none' }] });

describeArchitecture({
  name: 'decoder',
  options: [
    { dModel: 16, blocks: [{ block: 'attention', repeat: 2, heads: 2 }] },
    {
      dModel: 16,
      norm: 'rmsnorm',
      positions: 'rotary',
      tieEmbeddings: false,
      blocks: [
        { block: 'attention', heads: 4, ...llama },
        { block: 'attention', heads: 2, positions: 'rotary', window: 3 },
      ],
    },
  ],
});
