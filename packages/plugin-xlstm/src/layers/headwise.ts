import { customOp, dims, matmul, runKernel, tf } from '@llmx/core';

/**
 * Width up to which small blocks are multiplied together, with zeros between them: products of 4 x 4 and the copies around
 * them take longer than many times their arithmetic.
 */
const WIDE = 64;

/** How the blocks of a weight are multiplied. */
interface Plan {
  readonly blocks: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Blocks that make one product; they divide all. */
  readonly together: number;
  readonly groups: number;
}

function planOf(weight: tf.Tensor): Plan {
  const [blocks, inputs, outputs] = dims(weight, 3);
  const fits = Math.max(1, Math.min(blocks, Math.floor(WIDE / Math.max(inputs, outputs))));
  const candidates = Array.from({ length: fits }, (_, index) => fits - index);
  const together = candidates.find((count) => blocks % count === 0) ?? 1;
  return { blocks, inputs, outputs, together, groups: blocks / together };
}

/** Repeats a block's columns: float32 [outputs, together * outputs]. */
function repeated({ outputs, together }: Plan): tf.Tensor {
  const width = together * outputs;
  const values = new Float32Array(outputs * width);
  for (let column = 0; column < width; column++) values[(column % outputs) * width + column] = 1;
  return tf.tensor2d(values, [outputs, width]);
}

/** 1 where row and column are of one block, float32 [together * inputs, together * outputs]. */
function ownBlock({ inputs, outputs, together }: Plan): tf.Tensor {
  const [rows, width] = [together * inputs, together * outputs];
  const values = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    const start = row * width + Math.floor(row / inputs) * outputs;
    values.fill(1, start, start + outputs);
  }
  return tf.tensor2d(values, [rows, width]);
}

/** The weights of each group as one block-diagonal matrix, [groups, together * inputs, together * outputs]. */
function blockDiagonal(weight: tf.Tensor, plan: Plan): tf.Tensor {
  const { blocks, inputs, outputs, together, groups } = plan;
  if (together === 1) return weight;
  const copies = matmul(tf.reshape(weight, [blocks * inputs, outputs]), repeated(plan));
  return tf.mul(tf.reshape(copies, [groups, together * inputs, together * outputs]), ownBlock(plan));
}

/** The inverse of `blockDiagonal`, for gradients. */
function fromDiagonal(wide: tf.Tensor, plan: Plan): tf.Tensor {
  const { blocks, inputs, outputs, together } = plan;
  if (together === 1) return wide;
  const own = tf.reshape(tf.mul(wide, ownBlock(plan)), [blocks * inputs, together * outputs]);
  return tf.reshape(matmul(own, repeated(plan), { transposeB: true }), [blocks, inputs, outputs]);
}

/** [rows, width] as [groups, rows, width / groups], and back. */
function perGroup(x: tf.Tensor, { groups }: Plan): tf.Tensor {
  const [rows, width] = dims(x, 2);
  const split = [rows, groups, width / groups];
  return groups === 1 ? tf.expandDims(x, 0) : tf.transpose(tf.reshape(x, split), [1, 0, 2]);
}

function perRow(x: tf.Tensor): tf.Tensor {
  const [groups, rows, width] = dims(x, 3);
  return tf.reshape(groups === 1 ? x : tf.transpose(x, [1, 0, 2]), [rows, groups * width]);
}

function composite(x: tf.Tensor, weight: tf.Tensor): tf.Tensor {
  const plan = planOf(weight);
  return perRow(matmul(perGroup(x, plan), blockDiagonal(weight, plan)));
}

function compositeGradients(dy: tf.Tensor, x: tf.Tensor, weight: tf.Tensor): tf.Tensor[] {
  const plan = planOf(weight);
  const gradient = perGroup(dy, plan);
  const dWide = matmul(perGroup(x, plan), gradient, { transposeA: true });
  const dX = perRow(matmul(gradient, blockDiagonal(weight, plan), { transposeB: true }));
  return [dX, fromDiagonal(dWide, plan)];
}

/**
 * A linear map of each block of features with a matrix of its own: a block-diagonal matrix. Runs the kernels `XlstmHeadwise`
 * and `XlstmHeadwiseGrad` where there are any.
 *
 * @param x float32 [batch, time, blocks * inputs]
 * @param weight float32 [blocks, inputs, outputs]
 * @returns float32 [batch, time, blocks * outputs]
 */
export function headwise(x: tf.Tensor, weight: tf.Tensor): tf.Tensor {
  const [batch, time, width] = dims(x, 3);
  const rows = tf.reshape(x, [batch * time, width]);
  const mapped = customOp(
    [rows, weight],
    (save) => {
      save([rows, weight]);
      return runKernel('XlstmHeadwise', { x: rows, weight })?.[0] ?? composite(rows, weight);
    },
    (dy, saved) => {
      const [input, matrices] = saved as [tf.Tensor, tf.Tensor];
      const kernelResult = runKernel('XlstmHeadwiseGrad', { dy, x: input, weight: matrices });
      return kernelResult ?? compositeGradients(dy, input, matrices);
    },
  );
  return tf.reshape(mapped, [batch, time, -1]);
}
