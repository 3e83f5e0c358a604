import { LlmxError } from '../errors/index.ts';
import type { Params, StateTree } from '../plugin/types.ts';
import { tf } from './tf.ts';

/**
 * The parameter at `path`.
 *
 * @throws LlmxError `LLMX_PARAM_MISSING`
 */
export function at(params: Params, path: string): tf.Tensor {
  const tensor = params[path];
  if (tensor === undefined) throw new LlmxError('LLMX_PARAM_MISSING', `There is no parameter "${path}".`);
  return tensor;
}

/** Applies `f` to every entry; keys keep their order. */
export const mapParams = (params: Params, f: (value: tf.Tensor, path: string) => tf.Tensor): Params =>
  Object.fromEntries(Object.entries(params).map(([path, value]) => [path, f(value, path)]));

/** `params` with `prefix.` before every path. */
export const prefixed = (prefix: string, params: Params): Params =>
  Object.fromEntries(Object.entries(params).map(([path, value]) => [`${prefix}.${path}`, value]));

/** The entries below `prefix.`, under their local names. */
export function scoped(params: Params, prefix: string): Params {
  const start = `${prefix}.`;
  const own: Record<string, tf.Tensor> = {};
  // A loop without pairs: decoding does this for every block and token.
  for (const path of Object.keys(params)) if (path.startsWith(start)) own[path.slice(start.length)] = params[path]!;
  return own;
}

/** Every tensor of a state, with its path joined by `/`, in key order of the tree. */
export function stateTensors(state: StateTree): tf.Tensor[] {
  if (typeof state === 'number') return [];
  if (state instanceof tf.Tensor) return [state];
  return Object.values(state as Readonly<Record<string, StateTree>>).flatMap(stateTensors);
}
