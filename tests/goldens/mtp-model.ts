import type { Registry } from '../../packages/core/src/plugin/registry.ts';
import type { ForwardContext, Params } from '../../packages/core/src/plugin/types.ts';
import { at, embedding, layerNorm, scoped, tf } from '../../packages/core/src/tensor/index.ts';
import type { TrunkModel } from '../../packages/plugin-mtp/src/index.ts';

interface Sizes {
  readonly dModel: number;
  readonly heads: number;
  readonly bias: boolean;
  readonly tieEmbeddings: boolean;
  readonly layers: number;
  readonly vocabSize: number;
  readonly contextLength: number;
}

/** Core's decoder in the shape of GPT-2, with a view of what its last block reads. */
export function trunkModel(registry: Registry, { layers, vocabSize, contextLength, ...sizes }: Sizes): TrunkModel {
  const { dModel, heads, bias, tieEmbeddings } = sizes;
  const context = { vocabSize, contextLength };
  const entry = { heads, bias };
  const decoder = registry.create(
    'architecture',
    { name: 'decoder', dModel, bias, tieEmbeddings, blocks: [{ block: 'attention', repeat: layers, ...entry }] },
    context,
  );
  const block = registry.create(
    'block',
    { name: 'attention', ...entry },
    { ...context, dModel, index: 0, depth: layers },
  );
  const lastNorm = (params: Params, x: tf.Tensor) => layerNorm(x, at(params, 'norm.weight'), params['norm.bias']);
  return {
    dModel,
    vocabSize,
    init: (rng) => decoder.init(rng),
    hidden: (params, batch, circumstances) => decoder.hidden(params, batch, circumstances),
    logits: (params, hidden) => decoder.logits(params, hidden),
    crossEntropy: (params, hidden, labels) => decoder.crossEntropy!(params, hidden, labels),
    initialState: (batch) => decoder.initialState(batch),
    step: (params, tokens, state) => decoder.step(params, tokens, state),
    fork(params, { tokens }, circumstances: ForwardContext) {
      const pass = (x: tf.Tensor, index: number) => block.forward(scoped(params, `blocks.${index}`), x, circumstances);
      let trunk = tf.add(embedding(at(params, 'embedding.tokens'), tokens), at(params, 'embedding.positions'));
      for (let index = 0; index < layers - 1; index++) trunk = pass(trunk, index);
      return { trunk, hidden: lastNorm(params, pass(trunk, layers - 1)) };
    },
    lastNorm,
  };
}
