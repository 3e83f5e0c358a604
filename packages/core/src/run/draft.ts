import { LlmxError } from '../errors/index.ts';
import type { Draft } from '../plugin/types.ts';
import type { SavedModel } from './saved-model.ts';

/**
 * The draft of a saved model's objective: it has the objective's name, and reads what the objective trained.
 *
 * @throws LlmxError `LLMX_DRAFT_MISSING`
 */
export function openDraft({ resolved, model, checkpoint }: SavedModel): Draft {
  const { config, registry } = resolved;
  const { objective } = config;
  const isThere = registry.components().some(({ kind, name }) => kind === 'draft' && name === objective.name);
  if (!isThere)
    throw new LlmxError(
      'LLMX_DRAFT_MISSING',
      `The checkpoint "${checkpoint}" was trained with the objective ${objective.name}, which has no heads that propose tokens.`,
      { hint: 'Generate without --speculative, or train with an objective that `llmx components --kind draft` lists.' },
    );
  const { vocabSize } = model;
  const draft = registry.create('draft', objective, { vocabSize, contextLength: config.model.contextLength, model });
  if (draft.length > 0) return draft;
  throw new LlmxError(
    'LLMX_DRAFT_MISSING',
    `The objective ${objective.name} of the checkpoint "${checkpoint}" trained 0 heads beyond the next token's.`,
    { hint: 'Generate without --speculative, or train with more tokens ahead.' },
  );
}
