import { LlmxError } from '../errors/index.ts';
import type { Model, Params, StateTree, Tokenizer } from '../plugin/types.ts';
import { dims, stateTensors, tf } from '../tensor/index.ts';
import { candidates, draw, samplingNumber, type SamplingOptions } from './sample.ts';

export interface GenerationOptions extends SamplingOptions {
  /** Tokens to generate at most; generation ends earlier at end of text. */
  readonly maxTokens: number;
  readonly seed: number;
}

/** Decoding state and the logits of the next token, [vocab]. Owns the state's tensors. */
interface Decoding {
  readonly state: StateTree;
  readonly logits: Float32Array;
}

const dispose = (state: StateTree, except: readonly tf.Tensor[] = []): void =>
  stateTensors(state).forEach((tensor) => except.includes(tensor) || tensor.dispose());

/** Feeds tokens to the model and reads the logits of the one after them. Consumes the state. */
async function advance(model: Model, params: Params, state: StateTree, tokens: readonly number[]): Promise<Decoding> {
  const { logits, next } = tf.tidy(() => {
    const input = tf.tensor2d([...tokens], [1, tokens.length], 'int32');
    const result = model.step(params, input, state);
    const [, time] = dims(result.hidden, 3);
    const last = tf.slice(result.hidden, [0, time - 1, 0], [1, 1, -1]);
    return { logits: model.logits(params, last), next: result.state as tf.TensorContainerObject };
  });
  const values = (await logits.data()) as Float32Array;
  logits.dispose();
  dispose(state, stateTensors(next as StateTree)); // a model may hand parts of the old state through
  return { state: next as StateTree, logits: values };
}

/** The tokens to start decoding from: all that fit, else the last half context, so that there is room to go on. */
function visible(model: Model, tokens: readonly number[]): readonly number[] {
  const { maxPositions = Infinity } = model;
  return tokens.length <= maxPositions ? tokens : tokens.slice(-Math.max(1, Math.floor(maxPositions / 2)));
}

/**
 * Continues a text token by token with cached decoding. When the model's positions are used up, decoding starts again
 * from the last half context.
 *
 * @param prompt token ids; an empty prompt starts a new document
 * @returns ids as they are drawn, end of text not included
 * @throws LlmxError `LLMX_INTERRUPTED`
 */
export async function* generate(
  { model, params, tokenizer }: { model: Model; params: Params; tokenizer: Tokenizer },
  prompt: readonly number[],
  { maxTokens, seed, ...sampling }: GenerationOptions,
  signal: AbortSignal,
): AsyncGenerator<number> {
  const tokens = prompt.length > 0 ? [...prompt] : [tokenizer.endOfText];
  let decoding = await advance(model, params, model.initialState(1), visible(model, tokens));
  let position = visible(model, tokens).length;
  try {
    for (let index = 0; index < maxTokens; index++) {
      if (signal.aborted)
        throw new LlmxError('LLMX_INTERRUPTED', `Generation was stopped by ${String(signal.reason)}.`);
      // The model may have more rows than the tokenizer has ids.
      const possible = candidates(decoding.logits.subarray(0, tokenizer.vocabSize), sampling);
      const id = draw(possible, samplingNumber(seed, index));
      if (id === tokenizer.endOfText) return;
      yield id;
      tokens.push(id);
      if (index + 1 === maxTokens) return;
      const full = position >= (model.maxPositions ?? Infinity);
      const { state } = decoding;
      if (full) dispose(state);
      const input = full ? visible(model, tokens) : [id];
      position = full ? input.length : position + 1;
      decoding = await advance(model, params, full ? model.initialState(1) : state, input);
      await new Promise((resolve) => setImmediate(resolve)); // lets signals in
    }
  } finally {
    dispose(decoding.state);
  }
}

/** The generated text, piece by piece; characters whose bytes are still coming are held back. */
export async function* generateText(
  source: { model: Model; params: Params; tokenizer: Tokenizer },
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
