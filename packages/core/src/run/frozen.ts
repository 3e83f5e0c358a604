import { pathPatterns } from '../config/path-patterns.ts';
import { LlmxError, suggestion } from '../errors/index.ts';
import type { Params } from '../plugin/types.ts';
import type { TrainState } from '../train/step.ts';
import { type ModelParts, parameterShapes } from './model.ts';

/** Which parameters `train.freeze` keeps from being trained, by their paths. */
export type IsFrozen = (path: string) => boolean;

/**
 * @throws LlmxError `LLMX_CONFIG_INVALID` where a pattern matches no parameter, or nothing is left to train
 */
export function frozenBy(freeze: readonly string[], parts: ModelParts): IsFrozen {
  if (freeze.length === 0) return () => false;
  const patterns = pathPatterns(freeze);
  const paths = [...parameterShapes(parts).keys()];
  const idle = patterns.idle(paths);
  if (idle !== undefined)
    throw new LlmxError('LLMX_CONFIG_INVALID', `The pattern "${idle}" of train.freeze matches no parameter.`, {
      hint: suggestion(
        idle,
        paths.map((path) => `${path.split('.')[0]}.*`),
      ),
    });
  if (paths.every((path) => patterns.matches(path)))
    throw new LlmxError('LLMX_CONFIG_INVALID', `train.freeze matches all ${paths.length} parameters.`, {
      hint: 'Leave something to train, e.g. "objective.*", the parameters of the objective.',
    });
  return (path) => patterns.matches(path);
}

/** Parameters, parted into those that are trained and those that are not. */
export function parted(params: Params, isFrozen: IsFrozen): Pick<TrainState, 'params' | 'frozen'> {
  const entries = Object.entries(params);
  return {
    params: Object.fromEntries(entries.filter(([path]) => !isFrozen(path))),
    frozen: Object.fromEntries(entries.filter(([path]) => isFrozen(path))),
  };
}
