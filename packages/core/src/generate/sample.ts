import { randomKey, uniformValues } from '../tensor/index.ts';

export interface SamplingOptions {
  /** Divides the logits; 0 takes the most likely token. */
  readonly temperature: number;
  /** Keep the k most likely tokens; 0: all. */
  readonly topK: number;
  /** Keep the most likely tokens that together reach this probability; 1: all. */
  readonly topP: number;
}

/** Index of the largest value; the first of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let index = 1; index < values.length; index++) if (values[index]! > values[best]!) best = index;
  return best;
}

// Loops, here and below: callbacks for each id of each row are a tenth of the time of decoding bytes.
function sum(values: Float64Array): number {
  let total = 0;
  for (let index = 0; index < values.length; index++) total += values[index]!;
  return total;
}

/** How many of the largest weights to keep, of all weights in rising order. */
function kept(rising: Float64Array, { topK, topP }: SamplingOptions): number {
  const most = topK > 0 ? Math.min(topK, rising.length) : rising.length;
  if (topP >= 1) return most; // rounding must not cut anything off
  const enough = topP * sum(rising.subarray(rising.length - most));
  let [count, reached] = [0, 0];
  while (count < most && reached < enough) reached += rising[rising.length - ++count]!;
  return count;
}

/** Sets all but the `count` largest weights to 0; of equals, the first stay. */
function cut(weights: Float64Array, threshold: number, count: number): void {
  let ties = count - weights.reduce((above, weight) => above + (weight > threshold ? 1 : 0), 0);
  for (const [id, weight] of weights.entries())
    if (weight < threshold || (weight === threshold && ties-- <= 0)) weights[id] = 0;
}

/**
 * The probability of each token, float64 [vocab]: softmax(logits / temperature), cut to the k most likely, then to the
 * smallest set of most likely ones that reaches topP (Holtzman et al., arXiv 1904.09751).
 */
export function distribution(logits: ArrayLike<number>, sampling: SamplingOptions): Float64Array {
  const { temperature, topK, topP } = sampling;
  const best = argmax(logits);
  if (temperature === 0) return new Float64Array(logits.length).fill(1, best, best + 1);
  const weights = new Float64Array(logits.length);
  for (let id = 0; id < weights.length; id++) weights[id] = Math.exp((logits[id]! - logits[best]!) / temperature);
  if (topK > 0 || topP < 1) {
    const rising = weights.toSorted();
    const count = kept(rising, sampling);
    cut(weights, rising[rising.length - count]!, count);
  }
  const total = sum(weights);
  for (let id = 0; id < weights.length; id++) weights[id]! /= total;
  return weights;
}

/** Draws an id with a probability proportional to its weight; `uniform` is in (0, 1). */
export function draw(weights: Float64Array, uniform: number): number {
  const target = uniform * sum(weights);
  let reached = 0;
  for (let id = 0; id < weights.length; id++) {
    reached += weights[id]!;
    if (reached > target) return id;
  }
  // Rounding may leave the target at the sum.
  return weights.findLastIndex((weight) => weight > 0);
}

/** What a random number of a generated text decides: the token, whether a proposal for it stands, the proposal. */
export type Decision = 'token' | 'acceptance' | 'proposal';

/** The uniform number in (0, 1) of one decision about the token at `index` of a generated text. */
export type RandomNumbers = (decision: Decision, index: number) => number;

export function randomNumbers(seed: number): RandomNumbers {
  const keys = {
    token: randomKey(seed, 'sampling', ''),
    acceptance: randomKey(seed, 'sampling', 'acceptance'),
    proposal: randomKey(seed, 'sampling', 'proposal'),
  };
  return (decision, index) => uniformValues(keys[decision], 1, index)[0]!;
}
