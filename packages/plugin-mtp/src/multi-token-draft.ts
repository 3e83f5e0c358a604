import { defineDraft, type Draft, type DraftInput, type Model, type StateTree, tf } from '@llmx/core';

import { last, ownParams } from './heads.ts';
import { multiToken } from './multi-token.ts';
import { parallelHeads, type ParallelHeads } from './parallel-heads.ts';

interface State {
  /** How many positions the heads have seen. */
  readonly position: number;
  /** State of the head that predicts `ahead` + 1 tokens ahead, by `ahead`. */
  readonly heads: Readonly<Record<string, StateTree>>;
}

/** Parallel heads: what they propose depends on the last position alone, so one product with the unembedding serves all. */
class ParallelDraft implements Draft {
  readonly length: number;
  readonly #model: Model;
  readonly #parallel: ParallelHeads;

  constructor(parallel: ParallelHeads, model: Model) {
    this.length = parallel.heads.length;
    this.#parallel = parallel;
    this.#model = model;
  }

  initialState(): StateTree {
    const heads = this.#parallel.heads.map((head, index) => [`${index + 1}`, head.initialState()] as const);
    return { position: 0, heads: Object.fromEntries(heads) };
  }

  async propose({ draw, ...input }: DraftInput): Promise<StateTree> {
    const { logits, state } = tf.tidy(() => this.#advance(input));
    try {
      await draw(logits);
    } finally {
      logits.dispose();
    }
    return state as StateTree;
  }

  /** Heads beyond `count` are not asked again, so they need not go on. */
  #advance({ params, state, hidden, trunk, count }: Omit<DraftInput, 'draw'>) {
    const { reads, heads, finish } = this.#parallel;
    const { position, heads: before } = state as unknown as State;
    const seen = reads === 'trunk' ? trunk! : hidden;
    const x = heads.every(({ isLocal }) => isLocal) ? last(seen) : seen;
    const results = heads.slice(0, count).map((head, index) => {
      const ahead = index + 1;
      return head.step(ownParams(params, ahead), x, before[ahead]!, position);
    });
    const rows = finish(
      params,
      tf.concat(
        results.map((result) => last(result.x)),
        1,
      ),
    );
    const after = results.map((result, index) => [`${index + 1}`, result.state] as const);
    return {
      logits: this.#model.logits(params, rows),
      state: { position: position + seen.shape[1]!, heads: Object.fromEntries(after) } as tf.TensorContainerObject,
    };
  }
}

export const multiTokenDraft = defineDraft({
  name: multiToken.name,
  summary: 'The heads that the objective multi-token trained; all propose at once.',
  paper: 'https://arxiv.org/abs/2404.19737',
  config: multiToken.config,
  build: (options, context) => new ParallelDraft(parallelHeads(options, context.model, context), context.model),
});
