import { LlmxError } from '@llmx/core';

const invalid = (message: string, hint: string): LlmxError => new LlmxError('LLMX_CONFIG_INVALID', message, { hint });

/**
 * Where the sLSTM blocks are at a ratio of mLSTM to sLSTM blocks: in each group of blocks after its first, so that one mLSTM
 * block comes before; xLSTM[7:1] in blocks 1, 9, 17, ...
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID` where the ratio does not fit the number of blocks
 */
export function slstmPositions(depth: number, [matrix, scalar]: readonly [number, number]): number[] {
  const group = matrix + scalar;
  if (group === 0) throw invalid('ratio 0:0 has no blocks.', 'Set it to e.g. [7, 1] or [1, 0].');
  if (depth % group !== 0) {
    const above = group * Math.ceil(depth / group);
    throw invalid(
      `ratio ${matrix}:${scalar} repeats every ${group} blocks, which does not fit depth ${depth}.`,
      `Set depth to a multiple of ${group} such as ${above}, choose another ratio, or name the sLSTM blocks with slstmAt.`,
    );
  }
  const first = matrix > 0 ? 1 : 0;
  return Array.from({ length: depth }, (_, index) => index).filter(
    (index) => index % group >= first && index % group < first + scalar,
  );
}

/**
 * Positions as they were given.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID` for a position that is not in the model, or given twice
 */
export function checkPositions(depth: number, positions: readonly number[]): readonly number[] {
  const twice = positions.find((position, place) => positions.indexOf(position) < place);
  if (twice !== undefined)
    throw invalid(`slstmAt names block ${twice} twice.`, 'Name each sLSTM block once, counting from 0.');
  const outside = positions.find((position) => position >= depth);
  if (outside === undefined) return positions;
  throw invalid(
    `slstmAt names block ${outside}, but the model has blocks 0 to ${depth - 1}.`,
    'Name blocks of the model, or raise depth.',
  );
}
