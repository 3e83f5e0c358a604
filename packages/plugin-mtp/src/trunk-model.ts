import { LlmxError, type Model } from '@llmx/core';

/** A model that shows what its last block reads, so that heads can stand beside that block and share the norm after it. */
type TrunkModel = Model & Required<Pick<Model, 'fork' | 'lastNorm'>>;

/** Whether heads can read the trunk of `model`. */
export const hasTrunk = (model: Model): model is TrunkModel => model.fork !== undefined && model.lastNorm !== undefined;

/**
 * The model, as one whose trunk heads can read.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function requireTrunk(model: Model): TrunkModel {
  if (hasTrunk(model)) return model;
  throw new LlmxError(
    'LLMX_CONFIG_INVALID',
    'objective.reads is trunk, but the architecture does not show what its last block reads.',
    { hint: 'Set objective.reads to hidden.' },
  );
}
