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

export interface Candidate {
  readonly id: number;
  readonly probability: number;
}

/**
 * The tokens that may be drawn, most likely first, with probabilities that add up to 1: softmax(logits / temperature),
 * then the k most likely, then the smallest set of most likely ones that reaches topP (Holtzman et al.,
 * arXiv 1904.09751).
 */
export function candidates(logits: ArrayLike<number>, { temperature, topK, topP }: SamplingOptions): Candidate[] {
  const best = argmax(logits);
  if (temperature === 0) return [{ id: best, probability: 1 }];
  const weights = Array.from(logits, (logit, id) => ({ id, weight: Math.exp((logit - logits[best]!) / temperature) }));
  weights.sort((a, b) => b.weight - a.weight || a.id - b.id);
  const top = topK > 0 ? weights.slice(0, topK) : weights;
  const total = top.reduce((sum, { weight }) => sum + weight, 0);
  let reached = 0;
  const enough = top.findIndex(({ weight }) => (reached += weight / total) >= topP);
  // At topP 1 rounding must not cut anything off.
  const chosen = topP < 1 && enough >= 0 ? top.slice(0, enough + 1) : top;
  const mass = chosen.reduce((sum, { weight }) => sum + weight, 0);
  return chosen.map(({ id, weight }) => ({ id, probability: weight / mass }));
}

/** Draws one candidate with a number in (0, 1). */
export function draw(from: readonly Candidate[], uniform: number): number {
  let reached = 0;
  const chosen = from.find(({ probability }) => (reached += probability) > uniform);
  return (chosen ?? from.at(-1)!).id;
}

/** The random number of the token at `index` of a generated text. */
export const samplingNumber = (seed: number, index: number): number =>
  uniformValues(randomKey(seed, 'sampling', ''), 1, index)[0]!;
