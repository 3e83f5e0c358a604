import { z } from 'zod';

import { blockPatternSchema } from '../config/schema.ts';
import { LlmxError } from '../errors/index.ts';
import { defineArchitecture } from '../plugin/define.ts';
import type { Block, BuildContexts, ForwardContext, Model, Params, StateTree, StepContext } from '../plugin/types.ts';
import { at, dims, embedding, linear, linearCrossEntropy, matmul, prefixed, scoped, tf } from '../tensor/index.ts';
import { applyNorm, initNorm, NORMS } from './norm.ts';

const config = z.strictObject({
  dModel: z.int().positive().default(128).describe('Hidden size.'),
  blocks: blockPatternSchema
    .default([{ block: 'attention', repeat: 4 }])
    .describe('Blocks from input to output; keys beside block and repeat are options of the block.'),
  norm: z.enum(NORMS).default('layernorm').describe('Norm after the last block.'),
  normEpsilon: z.number().positive().default(1e-5),
  positions: z.enum(['learned', 'rotary', 'none']).default('learned').describe('Rotary is applied by the blocks.'),
  bias: z.boolean().default(true).describe('Bias in the last layer norm.'),
  tieEmbeddings: z.boolean().default(true).describe('Whether the unembedding is the token embedding.'),
  dropout: z.number().min(0).lt(1).default(0).describe('After the embedding.'),
  initStd: z.number().positive().default(0.02).describe('Standard deviation of initial embeddings.'),
});
type Config = z.output<typeof config>;

interface DecoderState {
  readonly position: number;
  readonly blocks: Readonly<Record<string, StateTree>>;
}

/** Embedding, blocks, norm, head. Parameters of block i are `blocks.<i>.` and the block's own names. */
class Decoder implements Model {
  readonly dModel: number;
  readonly vocabSize: number;
  readonly #contextLength: number;
  readonly #config: Config;
  readonly #blocks: readonly Block[];
  /** Present where every block has it. */
  readonly rewind?: NonNullable<Model['rewind']>;

  constructor(options: Config, { vocabSize, contextLength, create }: BuildContexts['architecture']) {
    this.#config = options;
    this.dModel = options.dModel;
    this.vocabSize = vocabSize;
    this.#contextLength = contextLength;
    const entries = options.blocks.flatMap(({ block, repeat, ...rest }) =>
      Array.from({ length: repeat }, () => ({ name: block, ...rest })),
    );
    this.#blocks = entries.map((entry, index) =>
      create('block', entry, { vocabSize, contextLength, dModel: options.dModel, index, depth: entries.length }),
    );
    if (this.#blocks.every((block) => block.rewind !== undefined))
      this.rewind = (params, state, count) => this.#rewound(params, state, count);
  }

  /** Learned positions end at the context length; so does a cache that nothing ever leaves. */
  get maxPositions(): number {
    const unbounded = this.#config.positions !== 'learned' && this.#blocks.every((block) => block.unbounded === true);
    return unbounded ? Infinity : this.#contextLength;
  }

  init(rng: Parameters<Model['init']>[0]): Params {
    const { initStd, positions, tieEmbeddings } = this.#config;
    const table = (path: string, rows: number) => ({ [path]: rng.normal(path, [rows, this.dModel], initStd) });
    const blocks = this.#blocks.map((block, index) =>
      prefixed(`blocks.${index}`, block.init(rng.scope(`blocks.${index}`))),
    );
    return {
      ...table('embedding.tokens', this.vocabSize),
      ...(positions === 'learned' ? table('embedding.positions', this.#contextLength) : {}),
      ...Object.assign({}, ...blocks),
      ...initNorm('norm', this.dModel, this.#config),
      ...(tieEmbeddings ? {} : { 'head.weight': rng.normal('head.weight', [this.dModel, this.vocabSize], initStd) }),
    };
  }

  hidden(params: Params, batch: Parameters<Model['hidden']>[1], context: ForwardContext): tf.Tensor {
    return this.fork(params, batch, context).hidden;
  }

  fork(
    params: Params,
    batch: Parameters<Model['hidden']>[1],
    context: ForwardContext,
  ): { trunk: tf.Tensor; hidden: tf.Tensor } {
    const { tokens, segments, positions } = batch;
    const places = { ...(segments && { segments }), ...(positions && { positions }) };
    let x = tf.tidy(() => {
      const embedded = this.#embed(params, tokens, 0, positions);
      return context.dropout(embedded, this.#config.dropout, 'embedding');
    });
    let trunk = x;
    for (const [index, block] of this.#blocks.entries()) {
      const name = `blocks.${index}`;
      const dropout: ForwardContext['dropout'] = (y, rate, place) => context.dropout(y, rate, `${name}.${place}`);
      const input = x;
      trunk = input;
      x = tf.tidy(() => block.forward(scoped(params, name), input, { training: context.training, ...places, dropout }));
    }
    return { trunk, hidden: this.lastNorm(params, x) };
  }

  lastNorm(params: Params, x: tf.Tensor): tf.Tensor {
    return applyNorm(params, 'norm', x, this.#config);
  }

  #embed(params: Params, tokens: tf.Tensor, offset: number, positions?: tf.Tensor): tf.Tensor {
    const embedded = embedding(at(params, 'embedding.tokens'), tokens);
    if (this.#config.positions !== 'learned') return embedded;
    const [, time] = dims(tokens, 2);
    if (offset + time > this.#contextLength)
      throw new LlmxError(
        'LLMX_CONTEXT_TOO_LONG',
        `The model has learned positions for ${this.#contextLength} tokens, got a window of ${offset + time}.`,
        { hint: `Use a context length of at most ${this.#contextLength}, or train with positions: rotary or none.` },
      );
    const table = at(params, 'embedding.positions');
    if (positions !== undefined) return tf.add(embedded, embedding(table, positions));
    // The whole table needs no slice, whose gradient would be a copy with zeros around it.
    return tf.add(embedded, time === this.#contextLength ? table : tf.slice(table, [offset, 0], [time, -1]));
  }

  logits(params: Params, hidden: tf.Tensor): tf.Tensor {
    if (!this.#config.tieEmbeddings) return linear(hidden, at(params, 'head.weight'));
    const flat = tf.reshape(hidden, [-1, this.dModel]);
    const logits = matmul(flat, at(params, 'embedding.tokens'), { transposeB: true });
    return tf.reshape(logits, [...hidden.shape.slice(0, -1), this.vocabSize]);
  }

  crossEntropy(params: Params, hidden: tf.Tensor, labels: tf.Tensor): tf.Tensor {
    const { tieEmbeddings: transposed } = this.#config;
    const weight = at(params, transposed ? 'embedding.tokens' : 'head.weight');
    const rows = tf.reshape(hidden, [-1, this.dModel]);
    return tf.reshape(linearCrossEntropy(rows, weight, tf.reshape(labels, [-1]), { transposed }), labels.shape);
  }

  initialState(batch: number): StateTree {
    const blocks = this.#blocks.map((block, index) => [`${index}`, block.initialState(batch)] as const);
    return { position: 0, blocks: Object.fromEntries(blocks) };
  }

  step(
    params: Params,
    tokens: tf.Tensor,
    state: StateTree,
    { rewindable = false }: Pick<StepContext, 'rewindable'> = {},
  ): { hidden: tf.Tensor; trunk: tf.Tensor; state: StateTree } {
    const { position, blocks } = state as unknown as DecoderState;
    const [, time] = dims(tokens, 2);
    let x = this.#embed(params, tokens, position);
    let trunk = x;
    const next: Record<string, StateTree> = {};
    for (const [index, block] of this.#blocks.entries()) {
      trunk = x;
      const own = scoped(params, `blocks.${index}`);
      const result = block.step(own, x, blocks[`${index}`]!, { position, rewindable });
      x = result.x;
      next[`${index}`] = result.state;
    }
    return { hidden: this.lastNorm(params, x), trunk, state: { position: position + time, blocks: next } };
  }

  #rewound(params: Params, state: StateTree, count: number): StateTree {
    const { position, blocks } = state as unknown as DecoderState;
    const earlier = this.#blocks.map((block, index) => {
      const own = scoped(params, `blocks.${index}`);
      return [`${index}`, block.rewind!(own, blocks[`${index}`]!, count)] as const;
    });
    return { position: position - count, blocks: Object.fromEntries(earlier) };
  }
}

export const decoder = defineArchitecture({
  name: 'decoder',
  summary: 'Embedding, a pattern of residual blocks from any plugin, norm, head.',
  config,
  build: (options, context) => new Decoder(options, context),
});
