import { z } from 'zod';

import { LlmxError } from '../errors/index.ts';
import { defineBlock } from '../plugin/define.ts';
import type { Block, ForwardContext, Params, Rng, StateTree, StepContext } from '../plugin/types.ts';
import { causalAttention, dims, rotation, tf } from '../tensor/index.ts';
import { ACTIVATIONS, feedForward, initFeedForward } from './feed-forward.ts';
import { applyLinear, initLinear } from './linear.ts';
import { applyNorm, initNorm, NORMS } from './norm.ts';

const size = z.int().positive();

const config = z.strictObject({
  heads: size.default(4).describe('Query heads; they divide dModel.'),
  kvHeads: size.optional().describe('Key and value heads, shared by groups of query heads; default: heads.'),
  window: size.optional().describe('Positions that each one sees, itself included; default: all earlier ones.'),
  feedForwardSize: size.optional().describe('Width of the feed-forward layer; default: 4 dModel, or 8/3 with swiglu.'),
  activation: z.enum(ACTIVATIONS).default('gelu'),
  norm: z.enum(NORMS).default('layernorm'),
  normEpsilon: z.number().positive().default(1e-5),
  positions: z.enum(['learned', 'rotary', 'none']).default('learned').describe('Rotary is applied here.'),
  ropeBase: z.number().positive().default(10_000).describe('Base of the rotary wavelengths.'),
  bias: z.boolean().default(true).describe('Biases in linear maps and layer norms.'),
  dropout: z.number().min(0).lt(1).default(0).describe('After attention and after the feed-forward layer.'),
  initStd: z.number().positive().default(0.02).describe('Standard deviation of initial weights.'),
});
type Config = z.output<typeof config>;

/** Keys and values of the positions seen so far, float32 [batch, seen, kvHeads, headSize]; empty at first. */
type Cache = { readonly key?: tf.Tensor; readonly value?: tf.Tensor };

/** Where a pass stands in its sequence. */
interface Place {
  readonly offset: number;
  readonly segments?: tf.Tensor | undefined;
  readonly positions?: tf.Tensor | undefined;
}

function checkHeads(dModel: number, { heads, kvHeads = heads, positions }: Config): void {
  const invalid = (message: string, hint: string) => new LlmxError('LLMX_CONFIG_INVALID', message, { hint });
  if (dModel % heads !== 0)
    throw invalid(`dModel ${dModel} is not a multiple of heads ${heads}.`, 'Choose a number of heads that divides it.');
  if (heads % kvHeads !== 0)
    throw invalid(`heads ${heads} is not a multiple of kvHeads ${kvHeads}.`, 'Choose kvHeads that divide heads.');
  if (positions === 'rotary' && (dModel / heads) % 2 !== 0)
    throw invalid(`Rotary positions need an even head size, got ${dModel / heads}.`, 'Change dModel or heads.');
}

/**
 * x + attention(norm(x)), then x + feedForward(norm(x)): the pre-norm block of GPT-2 (learned positions, layernorm,
 * gelu) and of Llama (rotary, rmsnorm, swiglu, kvHeads, no bias).
 */
class AttentionBlock implements Block {
  readonly unbounded: boolean;
  readonly #options: Config;
  readonly #dModel: number;
  readonly #heads: number;
  readonly #kvHeads: number;
  readonly #headSize: number;
  /** Residual branches start smaller so that their sum over depth keeps its size (Radford et al. 2019, section 2.3). */
  readonly #outputStd: number;

  constructor(options: Config, { dModel, depth }: { dModel: number; depth: number }) {
    checkHeads(dModel, options);
    const { heads, kvHeads = heads, window, initStd } = options;
    this.unbounded = window !== undefined;
    this.#options = options;
    this.#dModel = dModel;
    this.#heads = heads;
    this.#kvHeads = kvHeads;
    this.#headSize = dModel / heads;
    this.#outputStd = initStd / Math.sqrt(2 * depth);
  }

  init(rng: Rng): Params {
    const { initStd, bias } = this.#options;
    const [dModel, outputStd, kvSize] = [this.#dModel, this.#outputStd, this.#kvHeads * this.#headSize];
    const map = (name: string, outputs: number, std: number) =>
      initLinear(rng, `attention.${name}`, dModel, outputs, std, bias);
    return {
      ...initNorm('attention.norm', dModel, this.#options),
      ...map('query', dModel, initStd),
      ...map('key', kvSize, initStd),
      ...map('value', kvSize, initStd),
      ...map('output', dModel, outputStd),
      ...initNorm('feedForward.norm', dModel, this.#options),
      ...initFeedForward(rng, 'feedForward', dModel, this.#options, { std: initStd, outputStd }),
    };
  }

  forward(params: Params, x: tf.Tensor, context: ForwardContext): tf.Tensor {
    const { segments, positions } = context;
    const attended = tf.tidy(() => {
      const { merged } = this.#attend(params, x, {}, { offset: 0, segments, positions });
      return this.#branch(context, 'attention', x, (residual) => this.#output(params, merged, residual));
    });
    return tf.tidy(() =>
      this.#branch(context, 'feedForward', attended, (residual) => this.#feedForward(params, attended, residual)),
    );
  }

  initialState(): StateTree {
    return {};
  }

  step(
    params: Params,
    x: tf.Tensor,
    state: StateTree,
    { position, rewindable = false }: StepContext,
  ): { x: tf.Tensor; state: StateTree } {
    const { merged, cache } = this.#attend(params, x, state as Cache, { offset: position });
    const attended = this.#output(params, merged, x);
    const kept = rewindable ? cache : this.#visible(cache);
    return { x: this.#feedForward(params, attended, attended), state: kept };
  }

  rewind(_params: Params, state: StateTree, count: number): StateTree {
    const { key, value } = state as Required<Cache>;
    const [, seen] = dims(key, 4);
    const first = (tensor: tf.Tensor) => tf.slice(tensor, [0, 0, 0, 0], [-1, seen - count, -1, -1]);
    return { key: first(key), value: first(value) };
  }

  /** x + dropout(branch), the sum taken within the branch's last product where nothing is dropped. */
  #branch(
    context: ForwardContext,
    place: string,
    x: tf.Tensor,
    branch: (residual: tf.Tensor | undefined) => tf.Tensor,
  ): tf.Tensor {
    const { dropout } = this.#options;
    if (dropout === 0 || !context.training) return branch(x);
    return tf.add(x, context.dropout(branch(undefined), dropout, place));
  }

  #output(params: Params, merged: tf.Tensor, residual: tf.Tensor | undefined): tf.Tensor {
    return applyLinear(params, 'attention.output', merged, { residual });
  }

  #feedForward(params: Params, x: tf.Tensor, residual: tf.Tensor | undefined): tf.Tensor {
    const normed = applyNorm(params, 'feedForward.norm', x, this.#options, { rounded: true });
    return feedForward(params, 'feedForward', normed, this.#options, residual);
  }

  /** What the heads attend to, float32 [batch, time, dModel], and the keys and values of all positions so far. */
  #attend(params: Params, x: tf.Tensor, cache: Cache, { offset, segments, positions }: Place) {
    const { positions: kind, ropeBase, window } = this.#options;
    const normed = applyNorm(params, 'attention.norm', x, this.#options, { rounded: true });
    const [, time] = dims(x, 3);
    const turn =
      kind === 'rotary'
        ? rotation(time, this.#headSize, { base: ropeBase, offset, positions })
        : (tensor: tf.Tensor): tf.Tensor => tensor;
    const append = (past: tf.Tensor | undefined, now: tf.Tensor) =>
      past === undefined ? now : tf.concat([past, now], 1);
    const query = turn(this.#split(params, 'query', normed, this.#heads));
    const key = append(cache.key, turn(this.#split(params, 'key', normed, this.#kvHeads)));
    const value = append(cache.value, this.#split(params, 'value', normed, this.#kvHeads));
    const attended = causalAttention(query, key, value, { window, segments });
    return { merged: tf.reshape(attended, x.shape), cache: { key, value } };
  }

  /** A projection of float32 [batch, time, dModel] to [batch, time, count, headSize]. */
  #split(params: Params, name: string, x: tf.Tensor, count: number): tf.Tensor {
    const [batch, time] = dims(x, 3);
    const projected = applyLinear(params, `attention.${name}`, x, { rounded: true });
    return tf.reshape(projected, [batch, time, count, this.#headSize]);
  }

  /** The part of the cache that later positions can still see. */
  #visible(cache: { key: tf.Tensor; value: tf.Tensor }): Cache {
    const { window } = this.#options;
    const [, seen] = dims(cache.key, 4);
    if (window === undefined || seen < window) return cache;
    const last = (tensor: tf.Tensor) => tf.slice(tensor, [0, seen - window + 1, 0, 0], [-1, -1, -1, -1]);
    return { key: last(cache.key), value: last(cache.value) };
  }
}

export const attentionBlock = defineBlock({
  name: 'attention',
  summary: 'Pre-norm causal attention and feed-forward layer: GPT-2 and Llama shapes, grouped queries, sliding window.',
  paper: 'https://arxiv.org/abs/1706.03762',
  config,
  build: (options, context) => new AttentionBlock(options, context),
});
