import { z } from 'zod';

import { LlmxError } from '../errors/index.ts';
import { defineBlock } from '../plugin/define.ts';
import type { Block, Params, Rng, StateTree } from '../plugin/types.ts';
import { causalAttention, dims, rotary, tf } from '../tensor/index.ts';
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

/** Keys and values of the positions seen so far, float32 [batch, kvHeads, seen, headSize]; empty at first. */
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
function build(options: Config, { dModel, depth }: { dModel: number; depth: number }): Block {
  checkHeads(dModel, options);
  const { heads, kvHeads = heads, window, bias, dropout, initStd } = options;
  const headSize = dModel / heads;
  // Residual branches start smaller so that their sum over depth keeps its size (Radford et al. 2019, section 2.3).
  const outputStd = initStd / Math.sqrt(2 * depth);

  /** float32 [batch, time, dModel] to [batch, count, time, headSize]. */
  const split = (params: Params, name: string, x: tf.Tensor, count: number): tf.Tensor => {
    const [batch, time] = dims(x, 3);
    const projected = applyLinear(params, `attention.${name}`, x);
    return tf.transpose(tf.reshape(projected, [batch, time, count, headSize]), [0, 2, 1, 3]);
  };

  const attend = (params: Params, x: tf.Tensor, cache: Cache, { offset, segments, positions }: Place) => {
    const turn = (tensor: tf.Tensor): tf.Tensor =>
      options.positions === 'rotary' ? rotary(tensor, { base: options.ropeBase, offset, positions }) : tensor;
    const query = turn(split(params, 'query', x, heads));
    const append = (past: tf.Tensor | undefined, now: tf.Tensor) => (past === undefined ? now : tf.concat([past, now], 2));
    const key = append(cache.key, turn(split(params, 'key', x, kvHeads)));
    const value = append(cache.value, split(params, 'value', x, kvHeads));
    const merged = tf.transpose(causalAttention(query, key, value, { window, segments }), [0, 2, 1, 3]);
    return { output: applyLinear(params, 'attention.output', tf.reshape(merged, x.shape)), cache: { key, value } };
  };

  /** The part of the cache that later positions can still see. */
  const visible = (cache: { key: tf.Tensor; value: tf.Tensor }): Cache => {
    const [, , seen] = dims(cache.key, 4);
    if (window === undefined || seen < window) return cache;
    const last = (tensor: tf.Tensor) => tf.slice(tensor, [0, 0, seen - window + 1, 0], [-1, -1, -1, -1]);
    return { key: last(cache.key), value: last(cache.value) };
  };

  return {
    unbounded: window !== undefined,
    init(rng: Rng): Params {
      const map = (name: string, outputs: number) =>
        initLinear(rng, `attention.${name}`, dModel, outputs, initStd, bias);
      return {
        ...initNorm('attention.norm', dModel, options),
        ...map('query', dModel),
        ...map('key', kvHeads * headSize),
        ...map('value', kvHeads * headSize),
        ...initLinear(rng, 'attention.output', dModel, dModel, outputStd, bias),
        ...initNorm('feedForward.norm', dModel, options),
        ...initFeedForward(rng, 'feedForward', dModel, options, { std: initStd, outputStd }),
      };
    },
    forward(params, x, context) {
      const { segments, positions } = context;
      const attended = tf.tidy(() => {
        const normed = applyNorm(params, 'attention.norm', x, options);
        const { output } = attend(params, normed, {}, { offset: 0, segments, positions });
        return tf.add(x, context.dropout(output, dropout, 'attention'));
      });
      return tf.tidy(() => {
        const output = feedForward(params, 'feedForward', applyNorm(params, 'feedForward.norm', attended, options), options);
        return tf.add(attended, context.dropout(output, dropout, 'feedForward'));
      });
    },
    initialState: () => ({}),
    step(params, x, state, { position }) {
      const normed = applyNorm(params, 'attention.norm', x, options);
      const { output, cache } = attend(params, normed, state as Cache, { offset: position });
      const attended = tf.add(x, output);
      const fed = feedForward(params, 'feedForward', applyNorm(params, 'feedForward.norm', attended, options), options);
      return { x: tf.add(attended, fed), state: visible(cache) as StateTree };
    },
  };
}

export const attentionBlock = defineBlock({
  name: 'attention',
  summary: 'Pre-norm causal attention and feed-forward layer: GPT-2 and Llama shapes, grouped queries, sliding window.',
  paper: 'https://arxiv.org/abs/1706.03762',
  config,
  build,
});
