import { type Batch, type ForwardContext, LlmxError, type Model, type Params, type tf } from '@llmx/core';

/** A model that shows what its last block reads, so that heads can stand beside that block and share the norm after it. */
export interface TrunkModel extends Model {
  /** One pass: `trunk` is what the last block reads, `hidden` what `hidden()` gives; both float32 [batch, time, dModel]. */
  fork(
    params: Params,
    batch: Omit<Batch, 'labels'>,
    context: ForwardContext,
  ): { readonly trunk: tf.Tensor; readonly hidden: tf.Tensor };
  /** The norm after the last block, float32 [batch, time, dModel] to the same shape. */
  lastNorm(params: Params, x: tf.Tensor): tf.Tensor;
}

const isTrunkModel = (model: Model): model is TrunkModel => 'fork' in model && 'lastNorm' in model;

/**
 * The model, as one whose trunk heads can read.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function requireTrunk(model: Model): TrunkModel {
  if (isTrunkModel(model)) return model;
  throw new LlmxError(
    'LLMX_CONFIG_INVALID',
    'objective.reads is trunk, but the architecture does not show what its last block reads.',
    { hint: 'Set objective.reads to hidden.' },
  );
}
