import { LlmxError } from '../errors/index.ts';
import type { Draft, DraftInput, Model, Params, Tokenizer } from '../plugin/types.ts';
import { distribution, draw, type RandomNumbers, randomNumbers, type SamplingOptions } from './sample.ts';
import { DecodingSession, logitRows } from './session.ts';
import { type AcceptanceRule, type Proposal, verify } from './verify.ts';

/** A model to generate with, and a draft where it shall decode speculatively. */
export interface GenerationSource {
  readonly model: Model;
  readonly params: Params;
  readonly tokenizer: Tokenizer;
  readonly draft?: Draft | undefined;
}

export interface GenerationOptions extends SamplingOptions {
  /** Tokens to generate at most; generation ends earlier at end of text. */
  readonly maxTokens: number;
  readonly seed: number;
  /** Tokens that the draft proposes at a time; default: all it can. */
  readonly draftTokens?: number | undefined;
  /** Called after each round. */
  onRound?(round: DecodingRound): void;
}

/** What one round of decoding gave: a forward pass of the model over what it has not seen and what is proposed. */
export interface DecodingRound {
  /** Forward passes of the model: 1, or 2 where it cannot take rejected tokens back and starts from the state before. */
  readonly passes: number;
  /** Tokens that the draft had proposed. */
  readonly proposed: number;
  /** How many of them stood. */
  readonly accepted: number;
  /** Tokens that came out, end of text included: the proposals that stood, and one more unless they ended the text. */
  readonly tokens: number;
}

/** The tokens to start decoding from: all that fit, else the last half context, so that there is room to go on. */
function visible({ maxPositions = Infinity }: Model, tokens: readonly number[]): readonly number[] {
  return tokens.length <= maxPositions ? tokens : tokens.slice(-Math.max(1, Math.floor(maxPositions / 2)));
}

function draftLength(draft: Draft | undefined, asked: number | undefined): number {
  const most = draft?.length ?? 0;
  if (asked === undefined || asked <= most) return asked ?? most;
  throw new LlmxError('LLMX_DRAFT_MISSING', `${asked} draft tokens were asked for, but the model has ${most} heads.`, {
    hint: `Ask for at most ${most}, or train with more heads.`,
  });
}

/** What the draft proposes for the text from index `first` on. */
async function proposalsOf(
  session: DecodingSession,
  asked: Pick<DraftInput, 'tokens' | 'count'>,
  { vocabSize, sampling, random, first }: Drawing & { readonly first: number },
): Promise<Proposal[]> {
  const proposals: Proposal[] = [];
  if (asked.count <= 0) return proposals;
  const drawn = (row: Float32Array): number => {
    const weights = distribution(row.subarray(0, vocabSize), sampling);
    const id = draw(weights, random('proposal', first + proposals.length));
    proposals.push({ id, distribution: weights });
    return id;
  };
  await session.propose({ ...asked, draw: async (logits) => (await logitRows(logits)).map(drawn) });
  return proposals;
}

interface Drawing {
  readonly vocabSize: number;
  readonly sampling: SamplingOptions;
  readonly random: RandomNumbers;
}

/**
 * Decodes round by round. A round takes the tokens that the model has not seen and the proposals after them together; without a
 * draft there are no proposals. When the model's positions are used up, decoding starts again from the last half context.
 *
 * @param rule whether proposals stand, for tests
 * @throws LlmxError `LLMX_INTERRUPTED`, `LLMX_DRAFT_MISSING`
 */
export async function* decodeRounds(
  { tokenizer, ...source }: GenerationSource,
  prompt: readonly number[],
  { maxTokens, seed, draftTokens, ...sampling }: Omit<GenerationOptions, 'onRound'>,
  signal: AbortSignal,
  rule?: AcceptanceRule,
): AsyncGenerator<DecodingRound & { readonly ids: readonly number[] }> {
  const { endOfText, vocabSize } = tokenizer;
  const longest = draftLength(source.draft, draftTokens);
  const random = randomNumbers(seed);
  const text = prompt.length > 0 ? [...prompt] : [endOfText];
  const session = new DecodingSession(source);
  let fresh = visible(source.model, text); // what the model has not seen
  let proposals: Proposal[] = [];
  try {
    for (let done = 0; done < maxTokens;) {
      if (signal.aborted)
        throw new LlmxError('LLMX_INTERRUPTED', `Generation was stopped by ${String(signal.reason)}.`);
      const rows = await session.read([...fresh, ...proposals.map(({ id }) => id)], proposals.length + 1);
      const weights = (index: number) => distribution(rows[index]!.subarray(0, vocabSize), sampling);
      const ids = verify(proposals, weights, { random, first: done, rule });
      const passes = 1 + session.keep(fresh.length + ids.length - 1);
      const end = ids.indexOf(endOfText);
      const tokens = end < 0 ? ids.length : end + 1;
      const accepted = Math.min(tokens, ids.length - 1);
      yield { ids: end < 0 ? ids : ids.slice(0, end), passes, proposed: proposals.length, accepted, tokens };
      if (end >= 0) return;
      text.push(...ids);
      done += ids.length;
      if (session.room === 0) {
        session.restart();
        [fresh, proposals] = [visible(source.model, text), []];
      } else {
        const count = Math.min(longest, maxTokens - done - 1, session.room - 1);
        const asked = { tokens: [...fresh, ...ids], count };
        proposals = await proposalsOf(session, asked, { vocabSize, sampling, random, first: done });
        fresh = ids.slice(-1);
      }
      await new Promise((resolve) => setImmediate(resolve)); // lets signals in
    }
  } finally {
    session.dispose();
  }
}

/**
 * Continues a text with cached decoding; with a draft speculatively, which changes neither the most likely text nor the
 * distribution of what is drawn.
 *
 * @param prompt token ids; an empty prompt starts a new document
 * @returns ids as they are drawn, end of text not included
 * @throws LlmxError `LLMX_INTERRUPTED`, `LLMX_DRAFT_MISSING` where more draft tokens are asked for than there are heads
 */
export async function* generate(
  source: GenerationSource,
  prompt: readonly number[],
  { onRound, ...options }: GenerationOptions,
  signal: AbortSignal,
): AsyncGenerator<number> {
  for await (const { ids, ...round } of decodeRounds(source, prompt, options, signal)) {
    onRound?.(round);
    yield* ids;
  }
}

/** The generated text, piece by piece; characters whose bytes are still coming are held back. */
export async function* generateText(
  source: GenerationSource,
  prompt: string,
  options: GenerationOptions,
  signal: AbortSignal,
): AsyncGenerator<{ readonly text: string; readonly tokens: number }> {
  const decoder = new TextDecoder();
  const ids = [...source.tokenizer.encode(new TextEncoder().encode(prompt))];
  let tokens = 0;
  for await (const id of generate(source, ids, options, signal)) {
    const text = decoder.decode(source.tokenizer.decode([id]), { stream: true });
    yield { text, tokens: ++tokens };
  }
  const rest = decoder.decode();
  if (rest !== '') yield { text: rest, tokens };
}
