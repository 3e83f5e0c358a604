import { floats, integers, type Kernel } from './storage.ts';

/** `LlmxEmbedding`: rows of `weight` [rows, width] at `ids` [count], as [count, width]. */
export const embedding: Kernel = (storage, { weight, ids }) => {
  const width = weight!.shape[1]!;
  const output = storage.allocate([ids!.shape[0]!, width]);
  const [table, rows, result] = [floats(storage, weight), integers(storage, ids), floats(storage, output)];
  rows.forEach((row, index) => result.set(table.subarray(row * width, (row + 1) * width), index * width));
  return [output];
};

/**
 * `LlmxEmbeddingGrad`: sums of the rows of `dy` [count, width] by id, in order, as [attribute rows, width]; added to `sum`
 * of that shape where given.
 */
export const embeddingGrad: Kernel = (storage, { dy, ids, sum }, attributes) => {
  const width = dy!.shape[1]!;
  const output = storage.allocate([attributes['rows'] as number, width]);
  const [source, targets, sums] = [floats(storage, dy), integers(storage, ids), floats(storage, output)];
  if (sum === undefined) sums.fill(0);
  else sums.set(floats(storage, sum));
  targets.forEach((row, index) => {
    const [from, to] = [index * width, row * width];
    for (let column = 0; column < width; column++) sums[to + column]! += source[from + column]!;
  });
  return [output];
};
