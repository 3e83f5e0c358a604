import type { RunConfig } from '../config/schema.ts';
import { LlmxError } from '../errors/index.ts';
import type { Registry } from '../plugin/registry.ts';
import type { Model, Objective, Params, Rng, Tokenizer } from '../plugin/types.ts';
import { keyedRng, prefixed, tf } from '../tensor/index.ts';

/** The model of a configuration and the objective that trains it. */
export interface ModelParts {
  readonly model: Model;
  readonly objective: Objective;
}

/**
 * @throws LlmxError `LLMX_VOCAB_TOO_LARGE`, `LLMX_CONFIG_INVALID`, or the component's own
 */
export function buildModel(
  registry: Registry,
  config: Pick<RunConfig, 'model' | 'objective'>,
  tokenizer: Tokenizer,
): ModelParts {
  const { architecture, vocabSize = tokenizer.vocabSize, contextLength, ...options } = config.model;
  if (vocabSize < tokenizer.vocabSize)
    throw new LlmxError(
      'LLMX_VOCAB_TOO_LARGE',
      `The tokenizer has ${tokenizer.vocabSize} ids, which do not fit model.vocabSize ${vocabSize}.`,
      { hint: `Set model.vocabSize to at least ${tokenizer.vocabSize}, or leave it out.` },
    );
  const context = { vocabSize, contextLength };
  return {
    model: registry.create('architecture', { ...options, name: architecture }, context),
    objective: registry.create('objective', config.objective, context),
  };
}

/** Initial parameters of the model, and of the objective under `objective.`. */
export const initialParams = (parts: ModelParts, seed: number): Params => initialise(parts, keyedRng(seed, 'init'));

function initialise({ model, objective }: ModelParts, rng: Rng): Params {
  const owned = objective.init?.(rng.scope('objective'), model) ?? {};
  return { ...model.init(rng), ...prefixed('objective', owned) };
}

/** Gives zeros, for those who need shapes only. */
const zeros: Rng = {
  normal: (_path, shape) => tf.zeros([...shape]),
  uniform: (_path, shape) => tf.zeros([...shape]),
  scope: () => zeros,
};

/** Shape of every parameter that the model and the objective have, by path. */
export const parameterShapes = (parts: ModelParts): ReadonlyMap<string, readonly number[]> =>
  new Map(tf.tidy(() => Object.entries(initialise(parts, zeros)).map(([path, { shape }]) => [path, shape] as const)));

/** `8 x 32`; a scalar has no sizes. */
export const shownShape = (shape: readonly number[]): string => (shape.length === 0 ? 'scalar' : shape.join(' x '));

/**
 * Fails unless stored parameters are those of the model, names and shapes.
 *
 * @param where what they were read from, for the message
 * @throws LlmxError `LLMX_PARAM_MISMATCH`
 */
export function checkParams(stored: Params, parts: ModelParts, where: string): void {
  const expected = [...parameterShapes(parts)].map(([path, shape]) => [path, shownShape(shape)] as const);
  const missing = expected.filter(([path]) => !(path in stored)).map(([path]) => `"${path}" is missing`);
  const known = new Set(expected.map(([path]) => path));
  const unknown = Object.keys(stored).flatMap((path) => (known.has(path) ? [] : [`"${path}" is not in the model`]));
  const reshaped = expected.flatMap(([path, shape]) => {
    const found = stored[path] && shownShape(stored[path].shape);
    return found === undefined || found === shape ? [] : [`"${path}" is ${found} instead of ${shape}`];
  });
  const [first, ...rest] = [...missing, ...unknown, ...reshaped];
  if (first === undefined) return;
  const more = rest.length > 0 ? `, and ${rest.length} more` : '';
  throw new LlmxError(
    'LLMX_PARAM_MISMATCH',
    `The parameters in "${where}" are not those of the model: ${first}${more}.`,
    {
      hint: 'They belong to another configuration, or to another version of a plugin.',
    },
  );
}
