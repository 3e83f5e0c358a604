import { draw, type RandomNumbers } from './sample.ts';

/** A token that a draft proposes, and the probabilities it was drawn with, float64 [vocab]. */
export interface Proposal {
  readonly id: number;
  readonly distribution: Float64Array;
}

/**
 * Whether a proposal stands, from its probabilities under the model and under the draft and a uniform number.
 */
export type AcceptanceRule = (model: number, draft: number, uniform: number) => boolean;

/** With probability min(1, model / draft). */
const acceptanceRule: AcceptanceRule = (model, draft, uniform) => uniform * draft < model;

/** What the model gives more probability to than the draft, by how much. */
function surplus(model: Float64Array, draft: Float64Array): Float64Array {
  const weights = model.map((probability, id) => Math.max(0, probability - draft[id]!));
  // Rounding may turn a proposal down though both agree.
  return weights.some((weight) => weight > 0) ? weights : model;
}

/**
 * Speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318): the proposals up to the first
 * that is turned down, then one token more, so that every token has the distribution that the model alone gives it.
 *
 *     accept x with probability min(1, p(x) / q(x)), else draw from max(0, p - q) / sum(max(0, p - q))
 *
 * @param model p after i proposals, float64 [vocab]
 * @param first index of the first token in the text, for its random numbers
 * @returns between 1 and one more than the number of proposals
 */
export function verify(
  proposals: readonly Proposal[],
  model: (index: number) => Float64Array,
  { random, first, rule = acceptanceRule }: { random: RandomNumbers; first: number; rule?: AcceptanceRule | undefined },
): number[] {
  const tokens: number[] = [];
  for (const [index, proposal] of proposals.entries()) {
    const expected = model(index);
    const { id, distribution } = proposal;
    if (!rule(expected[id]!, distribution[id]!, random('acceptance', first + index)))
      return [...tokens, draw(surplus(expected, distribution), random('token', first + index))];
    tokens.push(id);
  }
  return [...tokens, draw(model(proposals.length), random('token', first + proposals.length))];
}
