import type { DecodingRound } from './generate.ts';

/** How speculative decoding went. */
export interface DecodingReport {
  /** Forward passes of the model, that of the prompt included. */
  readonly passes: number;
  /** Tokens that a forward pass gave on average; 1 without a draft. */
  readonly tokensPerPass: number;
  /** Times that the draft proposed a first token, a second one, ... */
  readonly proposed: readonly number[];
  /** How many of those stood, and with them all before. */
  readonly accepted: readonly number[];
  /** `accepted` / `proposed`. */
  readonly acceptance: readonly number[];
}

/** Adds rounds up. */
export class DecodingStatistics {
  #passes = 0;
  #tokens = 0;
  readonly #proposed: number[] = [];
  readonly #accepted: number[] = [];

  readonly add = ({ passes, proposed, accepted, tokens }: DecodingRound): void => {
    this.#passes += passes;
    this.#tokens += tokens;
    for (let index = 0; index < proposed; index++) {
      this.#proposed[index] = (this.#proposed[index] ?? 0) + 1;
      this.#accepted[index] = (this.#accepted[index] ?? 0) + (index < accepted ? 1 : 0);
    }
  };

  report(): DecodingReport {
    const [proposed, accepted] = [[...this.#proposed], [...this.#accepted]];
    return {
      passes: this.#passes,
      tokensPerPass: this.#passes === 0 ? 0 : this.#tokens / this.#passes,
      proposed,
      accepted,
      acceptance: accepted.map((count, index) => count / proposed[index]!),
    };
  }
}
