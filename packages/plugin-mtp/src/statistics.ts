import { labelsOfView, type Batch, type Metrics, type Model, type Params, tf, unrecorded } from '@llmx/core';

// About 3 % of the positions, so that their logits cost little beside the losses of all.
const SHARE = 1 / 32;
const MOST = 64;

/** Sums by name, scalars; divided where they are reported, when all micro-batches are in. */
type Sums = Record<string, tf.Tensor>;

const PREFIX = 'multiToken';
const key = (what: string, head: number | string): string => `${PREFIX}/${what}/${head}`;

/**
 * Positions to look closer at, as indices into [batch * time], spread evenly over those that have `lookahead` tokens behind
 * them in the window.
 */
export function samplePositions([batch, time]: readonly [number, number], lookahead: number): number[] {
  const perRow = time - lookahead + 1;
  const candidates = batch * perRow;
  const count = Math.min(candidates, MOST, Math.ceil(batch * time * SHARE));
  return Array.from({ length: count }, (_, index) => {
    const chosen = Math.floor(((index + 0.5) * candidates) / count);
    return Math.floor(chosen / perRow) * time + (chosen % perRow);
  });
}

/** Rows of float32 [batch, time, dModel] at the positions plus `shift`, float32 [count, dModel]. */
export function rowsAt(x: tf.Tensor, positions: readonly number[], shift = 0): tf.Tensor {
  const indices = tf.tensor1d(
    positions.map((position) => position + shift),
    'int32',
  );
  return tf.gather(tf.reshape(x, [-1, x.shape.at(-1)!]), indices);
}

/** The likeliest token of each row, int32 [count]. */
const choices = (model: Model, params: Params, rows: tf.Tensor): tf.Tensor =>
  tf.tidy(() => tf.reshape(tf.argMax(model.logits(params, tf.expandDims(rows, 0)), -1), [-1]));

const ones = (condition: tf.Tensor): tf.Tensor => tf.cast(condition, 'float32');

/**
 * What self-speculative decoding could expect, given the true text: at sampled positions, how often the next-token head is
 * right; how often each further head chooses what the next-token head chooses once it is there; and how often all heads
 * up to it do.
 *
 * @param nextToken hidden states of the next-token head, float32 [batch, time, dModel]
 * @param guesses hidden states of the further heads at `positions`, float32 [count, dModel] each
 */
export function acceptance(
  { model, params, batch }: { model: Model; params: Params; batch: Batch },
  positions: readonly number[],
  nextToken: tf.Tensor,
  guesses: readonly tf.Tensor[],
): Sums {
  return unrecorded(() => {
    const sums: Sums = {};
    const labelsAt = (view: number) =>
      tf.reshape(rowsAt(tf.expandDims(labelsOfView(batch.labels, view), 2), positions), [-1]);
    const first = labelsAt(0);
    sums[key('sampled', 1)] = tf.sum(ones(tf.greaterEqual(first, 0)));
    const chosen = choices(model, params, rowsAt(nextToken, positions));
    sums[key('correct', 1)] = tf.sum(ones(tf.equal(chosen, first)));
    let accepted: tf.Tensor = tf.ones([positions.length]);
    for (const [index, rows] of guesses.entries()) {
      const ahead = index + 1;
      const isTarget = ones(tf.greaterEqual(labelsAt(ahead), 0));
      const verdict = choices(model, params, rowsAt(nextToken, positions, ahead));
      const agrees = tf.mul(ones(tf.equal(choices(model, params, rows), verdict)), isTarget);
      accepted = tf.mul(accepted, agrees);
      sums[key('sampled', ahead + 1)] = tf.sum(isTarget);
      sums[key('agreed', ahead + 1)] = tf.sum(agrees);
      sums[key('accepted', ahead + 1)] = tf.sum(accepted);
    }
    return sums;
  });
}

/** Sum of the losses of one head and the number of its targets. */
export const lossSums = (batch: Batch, view: number, sum: tf.Tensor): Sums =>
  unrecorded(() => ({
    [key('loss', view + 1)]: sum,
    [key('targets', view + 1)]: tf.sum(ones(tf.greaterEqual(labelsOfView(batch.labels, view), 0))),
  }));

/** What a sum is divided by, and how the quotient is called. */
const REPORTS: Readonly<Record<string, { readonly by: string; readonly name: (head: string) => string }>> = {
  loss: { by: 'targets', name: (head) => `loss/head${head}` },
  correct: { by: 'sampled', name: () => 'accuracy' },
  agreed: { by: 'sampled', name: (head) => `acceptance/head${head}` },
};

/**
 * The metrics of a step with this plugin's sums replaced by what they say: `loss/head<k>` in nats per token, `accuracy` of
 * the next-token head, `acceptance/head<k>`, and `acceptance/tokensPerPass`, the tokens that one forward pass of greedy
 * self-speculative decoding would give. What has no targets in the step is left out.
 */
export function reported(metrics: Metrics): Metrics | undefined {
  const entries = Object.entries(metrics);
  const sums = entries.filter(([name]) => name.startsWith(`${PREFIX}/`));
  if (sums.length === 0) return undefined;
  const results: Record<string, number> = {};
  let tokensPerPass: number | undefined;
  for (const [path, sum] of sums) {
    const [, what, head] = path.split('/') as [string, string, string];
    const report = REPORTS[what];
    const count = metrics[key(report?.by ?? 'sampled', head)] ?? 0;
    if (count === 0) continue;
    if (report !== undefined) results[report.name(head)] = sum / count;
    if (what === 'accepted') tokensPerPass = (tokensPerPass ?? 1) + sum / count;
  }
  return {
    ...Object.fromEntries(entries.filter(([name]) => !name.startsWith(`${PREFIX}/`))),
    ...results,
    ...(tokensPerPass !== undefined && { 'acceptance/tokensPerPass': tokensPerPass }),
  };
}
