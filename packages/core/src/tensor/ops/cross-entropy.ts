import { customOp, hasKernel, runKernel } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';
import { multiply } from './matmul.ts';

// Logits held at once: 2^24 float32 values are 64 MiB.
const LOGITS_BUDGET = 2 ** 24;

export interface CrossEntropyOptions {
  /** Whether the weight is stored [vocab, width], as a token embedding is. */
  readonly transposed?: boolean;
  /** Vocabulary entries per tile; default: as many as keep a tile within 64 MiB. */
  readonly tile?: number;
}

/** Columns of the head's weight that belong to one tile of the vocabulary. */
interface Tile {
  readonly start: number;
  readonly weight: tf.Tensor;
}

function tiles(weight: tf.Tensor, transposed: boolean, size: number): Tile[] {
  const [first, second] = dims(weight, 2);
  const vocab = transposed ? first : second;
  if (size >= vocab) return [{ start: 0, weight }];
  return Array.from({ length: Math.ceil(vocab / size) }, (_, index) => {
    const start = index * size;
    const length = Math.min(size, vocab - start);
    const [begin, shape] = transposed
      ? [
          [start, 0],
          [length, -1],
        ]
      : [
          [0, start],
          [-1, length],
        ];
    return { start, weight: tf.slice(weight, begin, shape) };
  });
}

/** 1 at each label within [start, start + depth), float32 [rows, depth]; other labels give zeros. */
const indicator = (labels: tf.Tensor, start: number, depth: number): tf.Tensor =>
  // In int32: the wasm backend's float32 oneHot is wrong.
  tf.cast(tf.oneHot(tf.sub(labels, tf.scalar(start, 'int32')), depth, 1, 0, 'int32'), 'float32');

const isTarget = (labels: tf.Tensor): tf.Tensor => tf.cast(tf.greaterEqual(labels, 0), 'float32');

/** Loss per row and its derivative by the logits, from all logits at once. */
function whole(logits: tf.Tensor, labels: tf.Tensor): [tf.Tensor, tf.Tensor] {
  const kernelResult = runKernel('LlmxCrossEntropy', { logits, labels });
  if (kernelResult !== undefined) return kernelResult as [tf.Tensor, tf.Tensor];
  const [, vocab] = dims(logits, 2);
  const shifted = tf.sub(logits, tf.max(logits, -1, true));
  const logSum = tf.log(tf.sum(tf.exp(shifted), -1, true));
  const logProbabilities = tf.sub(shifted, logSum);
  const chosen = indicator(labels, 0, vocab);
  const loss = tf.neg(tf.sum(tf.mul(logProbabilities, chosen), -1));
  const gradient = tf.mul(tf.sub(tf.exp(logProbabilities), chosen), tf.expandDims(isTarget(labels), 1));
  return [loss, gradient];
}

/** log(sum(exp(logits))) per row, [rows, 1], and the label's logit, [rows, 1], one tile of the vocabulary at a time. */
function streamed(hidden: tf.Tensor, labels: tf.Tensor, parts: Tile[], transposed: boolean): [tf.Tensor, tf.Tensor] {
  const [rows] = dims(hidden, 2);
  let state = [tf.fill([rows, 1], -Infinity), tf.zeros([rows, 1]), tf.zeros([rows, 1])] as tf.Tensor[];
  for (const { start, weight } of parts) {
    const next = tf.tidy(() => {
      const [peak, sum, chosen] = state as [tf.Tensor, tf.Tensor, tf.Tensor];
      const logits = multiply(hidden, weight, { transposeB: transposed });
      const [, length] = dims(logits, 2);
      const newPeak = tf.maximum(peak, tf.max(logits, -1, true));
      const rescaled = tf.mul(sum, tf.exp(tf.sub(peak, newPeak)));
      const added = tf.sum(tf.exp(tf.sub(logits, newPeak)), -1, true);
      const here = tf.sum(tf.mul(logits, indicator(labels, start, length)), -1, true);
      return [newPeak, tf.add(rescaled, added), tf.add(chosen, here)];
    });
    tf.dispose(state);
    state = next;
  }
  const [peak, sum, chosen] = state as [tf.Tensor, tf.Tensor, tf.Tensor];
  return [tf.add(peak, tf.log(sum)), chosen];
}

/** Gradients of hidden states and weight, given the derivative by the logits of each tile. */
function headGradients(
  hidden: tf.Tensor,
  parts: Tile[],
  transposed: boolean,
  byLogits: (tile: Tile) => tf.Tensor,
): [tf.Tensor, tf.Tensor] {
  let dHidden: tf.Tensor | undefined;
  const dWeights = parts.map((tile) => {
    const [dPart, dWeight] = tf.tidy(() => {
      const g = byLogits(tile);
      const part = multiply(g, tile.weight, { transposeB: !transposed });
      const byWeight = transposed
        ? multiply(g, hidden, { transposeA: true })
        : multiply(hidden, g, { transposeA: true });
      return [dHidden === undefined ? part : tf.add(dHidden, part), byWeight] as [tf.Tensor, tf.Tensor];
    });
    dHidden?.dispose();
    dHidden = dPart;
    return dWeight;
  });
  return [dHidden!, dWeights.length === 1 ? dWeights[0]! : tf.concat(dWeights, transposed ? 0 : 1)];
}

/**
 * Cross-entropy of softmax(hidden weight) in nats, without holding all logits where they are many: beyond 64 MiB of
 * logits the vocabulary is tiled, and the backward pass computes each tile's logits again. The kernels
 * `LlmxLinearCrossEntropy` and `LlmxLinearCrossEntropyGrad` do all of it where the backend has them; else
 * `LlmxCrossEntropy` serves logits that fit.
 *
 * @param hidden float32 [rows, width]
 * @param weight float32 [width, vocab], or [vocab, width] if `transposed`
 * @param labels int32 [rows]; -1 is ignored
 * @returns float32 [rows]; 0 where ignored
 */
export function linearCrossEntropy(
  hidden: tf.Tensor,
  weight: tf.Tensor,
  labels: tf.Tensor,
  options: CrossEntropyOptions = {},
): tf.Tensor {
  const { transposed = false } = options;
  return options.tile === undefined && hasKernel('LlmxLinearCrossEntropy')
    ? fusedCrossEntropy(hidden, weight, labels, transposed)
    : compositeCrossEntropy(hidden, weight, labels, options);
}

/** With the backend's kernels, which decide themselves what they keep. */
const fusedCrossEntropy = (hidden: tf.Tensor, weight: tf.Tensor, labels: tf.Tensor, transposed: boolean): tf.Tensor =>
  customOp(
    [hidden, weight],
    (save) => {
      const inputs = { hidden, weight, labels };
      const [loss, logSum, logits] = runKernel('LlmxLinearCrossEntropy', inputs, { transposed }) as tf.Tensor[];
      save([hidden, weight, labels, logSum!, logits!]);
      return loss!;
    },
    (dy, saved) => {
      const [savedHidden, savedWeight, savedLabels, logSum, logits] = saved as tf.Tensor[];
      const inputs = {
        dy,
        hidden: savedHidden!,
        weight: savedWeight!,
        labels: savedLabels!,
        logSum: logSum!,
        logits: logits!,
      };
      return runKernel('LlmxLinearCrossEntropyGrad', inputs, { transposed })!;
    },
  );

function compositeCrossEntropy(
  hidden: tf.Tensor,
  weight: tf.Tensor,
  labels: tf.Tensor,
  options: CrossEntropyOptions,
): tf.Tensor {
  const { transposed = false } = options;
  const [rows] = dims(hidden, 2);
  const { tile = Math.max(256, Math.floor(LOGITS_BUDGET / rows)) } = options;
  const vocab = weight.shape[transposed ? 0 : 1]!;

  if (tile >= vocab)
    return customOp(
      [hidden, weight],
      (save) => {
        const [loss, gradient] = whole(multiply(hidden, weight, { transposeB: transposed }), labels);
        save([hidden, weight, gradient]);
        return loss;
      },
      (dy, saved) => {
        const [savedHidden, savedWeight, gradient] = saved as [tf.Tensor, tf.Tensor, tf.Tensor];
        const part = { start: 0, weight: savedWeight };
        return headGradients(savedHidden, [part], transposed, () => tf.mul(gradient, tf.expandDims(dy, 1)));
      },
    );

  return customOp(
    [hidden, weight],
    (save) => {
      const [logSum, chosen] = streamed(hidden, labels, tiles(weight, transposed, tile), transposed);
      save([hidden, weight, labels, logSum]);
      return tf.mul(tf.squeeze(tf.sub(logSum, chosen), [1]), isTarget(labels));
    },
    (dy, saved) => {
      const [savedHidden, savedWeight, savedLabels, logSum] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
      const scale = tf.expandDims(tf.mul(dy, isTarget(savedLabels)), 1);
      return headGradients(savedHidden, tiles(savedWeight, transposed, tile), transposed, (part) => {
        const logits = multiply(savedHidden, part.weight, { transposeB: transposed });
        const [, length] = dims(logits, 2);
        const probabilities = tf.exp(tf.sub(logits, logSum));
        return tf.mul(tf.sub(probabilities, indicator(savedLabels, part.start, length)), scale);
      });
    },
  );
}
