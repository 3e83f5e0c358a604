import { defineDraft, type Draft, type DraftInput, type Model, type Params, type StateTree, tf } from '@llmx/core';

import { last, ownParams, span } from './heads.ts';
import { embedTokens, type Module, sequentialModules } from './modules.ts';
import { multiTokenSequential } from './multi-token-sequential.ts';

/** State of module k, which reads the states of module k - 1 and the token k ahead. */
interface ModuleState {
  /** How many positions the block has seen. */
  readonly position: number;
  readonly block: StateTree;
  /** States of the module before, at the one position whose token k ahead was not certain yet. */
  readonly waiting?: tf.Tensor;
}

/** States of a module, float32 [1, time, dModel] or nothing: where all it reads is certain, and after that. */
interface Outputs {
  readonly certain?: tf.Tensor | undefined;
  readonly guessed?: tf.Tensor | undefined;
}

const joined = (tensors: readonly (tf.Tensor | undefined)[]): tf.Tensor | undefined => {
  const present = tensors.filter((tensor) => tensor !== undefined);
  return present.length > 0 ? tf.concat(present, 1) : undefined;
};

const lastOf = (ids: readonly number[], count: number): readonly number[] => ids.slice(ids.length - count);

const lengthOf = (x: tf.Tensor | undefined): number => x?.shape[1] ?? 0;

/**
 * Chained modules, drawing token by token. Module k at position t reads the token t + k, so at the last k - 1 positions it
 * reads proposals; those are forgotten, and the positions read again once their tokens are certain.
 */
class SequentialDraft implements Draft {
  readonly length: number;
  readonly #model: Model;
  readonly #modules: readonly Module[];

  constructor(modules: readonly Module[], model: Model) {
    this.length = modules.length;
    this.#modules = modules;
    this.#model = model;
  }

  initialState(): StateTree {
    const states = this.#modules.map((module, index) => [
      `${index + 1}`,
      { position: 0, block: module.initialState() },
    ]);
    return Object.fromEntries(states) as StateTree;
  }

  async propose({ params, state, hidden, tokens, count, draw }: DraftInput): Promise<StateTree> {
    const next: Record<string, StateTree> = {};
    const guesses: number[] = [];
    let outputs: Outputs = { certain: hidden };
    for (let ahead = 1; ahead <= count; ahead++) {
      const before = (state as unknown as Record<string, ModuleState>)[ahead]!;
      const read = { certain: tokens, guessed: guesses };
      const result = tf.tidy(() => this.#advance({ params, ahead }, outputs, before, read));
      if (ahead > 1) tf.dispose([outputs.certain, outputs.guessed]);
      ({ outputs } = result);
      next[ahead] = result.state as StateTree;
      guesses.push(...(await draw(result.logits)));
      result.logits.dispose();
    }
    tf.dispose([outputs.certain, outputs.guessed]);
    return next;
  }

  /** Module `ahead` at new positions, and at those where it must read guesses. */
  #advance(
    { params, ahead }: { params: Params; ahead: number },
    before: Outputs,
    { position, block, waiting }: ModuleState,
    tokens: { certain: readonly number[]; guessed: readonly number[] },
  ) {
    const [model, module, own] = [this.#model, this.#modules[ahead - 1]!, ownParams(params, ahead)];
    const known = joined([waiting, before.certain]);
    // The first module reads the next token, which is always certain.
    const held = known !== undefined && ahead > 1 ? last(known) : undefined;
    const ready = lengthOf(known) - lengthOf(held);
    const guessed = lengthOf(held) + lengthOf(before.guessed);
    const ids = [...lastOf(tokens.certain, ready), ...lastOf(tokens.guessed, guessed)];
    const embedded = embedTokens(model, params, tf.tensor2d([ids], undefined, 'int32'));
    const inputs = [joined([known, before.guessed])!, embedded] as const;
    const { x, state } = module.step(own, inputs, block, { position, guessed });
    const part = (start: number, length: number) => (length > 0 ? span(x, start, length) : undefined);
    return {
      outputs: { certain: part(0, ready), guessed: part(ready, guessed) },
      logits: model.logits(params, module.finish(own, last(x))),
      state: { position: position + ready, block: state as tf.TensorContainer, ...(held && { waiting: held }) },
    };
  }
}

export const multiTokenSequentialDraft = defineDraft({
  name: multiTokenSequential.name,
  summary: 'The modules that the objective multi-token-sequential trained; each sees what the one before proposed.',
  paper: 'https://arxiv.org/abs/2412.19437',
  config: multiTokenSequential.config,
  build: (options, context) => new SequentialDraft(sequentialModules(options, context.model, context), context.model),
});
