import { defineArchitecture, LlmxError, z } from '@llmx/core';

import { smallStd } from './layers/sizes.ts';
import { checkPositions, slstmPositions } from './positions.ts';

interface Size {
  readonly dModel: number;
  readonly depth: number;
  /** Where the paper has its sLSTM blocks at a ratio of 7 to 1. */
  readonly slstmAt?: readonly number[];
}

const LARGE = { depth: 48, slstmAt: [3, 5, 7, 40, 42, 44] } as const;

/** The paper's sizes (Beck et al. 2024, tables 7 and 8), which count parameters with two embeddings, and smaller ones without. */
const SIZES = {
  '1M': { dModel: 128, depth: 8 },
  '3M': { dModel: 256, depth: 8 },
  '15M': { dModel: 384, depth: 16 },
  '125M': { dModel: 768, depth: 24, slstmAt: [3, 20] },
  '350M': { dModel: 1024, ...LARGE },
  '760M': { dModel: 1536, ...LARGE },
  '1.3B': { dModel: 2048, ...LARGE },
} as const satisfies Record<string, Size>;

const count = z.int().positive();
const share = z.int().min(0);

const config = z.strictObject({
  size: z
    .enum(Object.keys(SIZES) as [keyof typeof SIZES])
    .default('1M')
    .describe(
      'Number of parameters, roughly: gives dModel and depth, and in the sizes of the paper the sLSTM positions.',
    ),
  dModel: count.optional().describe('Hidden size; default: that of size.'),
  depth: count.optional().describe('Number of blocks; default: that of size.'),
  ratio: z
    .array(share)
    .length(2, { error: 'expected two counts, e.g. [7, 1]' })
    .optional()
    .describe('mLSTM to sLSTM blocks, as in xLSTM[7:1]; default: [7, 1]. It fits depth.'),
  slstmAt: z.array(share).optional().describe('Positions of the sLSTM blocks, from 0, instead of a ratio.'),
  heads: count.default(4).describe('Heads of every block.'),
  chunk: count.default(64).describe('Positions per chunk of the mLSTM; results do not depend on it.'),
  dropout: z.number().min(0).lt(1).default(0).describe('Within the residual branches.'),
  tieEmbeddings: z.boolean().default(false).describe('Whether the unembedding is the token embedding.'),
});
type Config = z.output<typeof config>;

const RATIO = [7, 1] as const;

/** The positions of the sLSTM blocks: given, those of the paper for the size, or spread by the ratio. */
function positionsOf({ size, depth: given, ratio, slstmAt }: Config): readonly number[] {
  const { depth: usual, slstmAt: ofPaper }: Size = SIZES[size];
  const depth = given ?? usual;
  if (slstmAt !== undefined && ratio !== undefined)
    throw new LlmxError('LLMX_CONFIG_INVALID', 'ratio and slstmAt both say where the sLSTM blocks are.', {
      hint: 'Leave one of them out.',
    });
  if (slstmAt !== undefined) return checkPositions(depth, slstmAt);
  const [matrix = 0, scalar = 0] = ratio ?? RATIO;
  const asInPaper = depth === usual && matrix === RATIO[0] && scalar === RATIO[1];
  return asInPaper && ofPaper ? ofPaper : slstmPositions(depth, [matrix, scalar]);
}

export const xlstm = defineArchitecture({
  name: 'xlstm',
  summary: 'xLSTM[m:s]: mLSTM and sLSTM blocks in a ratio or at positions, in the sizes of the paper and smaller ones.',
  paper: 'https://arxiv.org/abs/2405.04517',
  config,
  build(options, { create, vocabSize, contextLength }) {
    const { size, heads, chunk, dropout, tieEmbeddings } = options;
    const { dModel = SIZES[size].dModel, depth = SIZES[size].depth } = options;
    const scalar = new Set(positionsOf(options));
    const blocks = Array.from({ length: depth }, (_, index) =>
      scalar.has(index) ? { block: 'slstm', heads, dropout } : { block: 'mlstm', heads, chunk, dropout },
    );
    const stack = { name: 'decoder', dModel, blocks, positions: 'none', bias: false, tieEmbeddings };
    return create('architecture', { ...stack, initStd: smallStd(dModel) }, { vocabSize, contextLength });
  },
});
