import { crossEntropy, type Model, type Params, tf, unrecorded } from '@llmx/core';

/** Names of the parameters that `run` reads. */
function pathsRead(params: Params, run: (watched: Params) => void): string[] {
  const paths = new Set<string>();
  const watched = new Proxy(params, {
    get(target, path) {
      if (typeof path === 'string' && Object.hasOwn(target, path)) paths.add(path);
      return Reflect.get(target, path) as unknown;
    },
  });
  unrecorded(() =>
    tf.tidy(() => {
      run(watched);
    }),
  );
  return [...paths];
}

/**
 * The parameters that turn hidden states into a loss, e.g. the unembedding, whatever the architecture calls them: found by
 * watching it score one position.
 *
 * @param finish what hidden states go through before the unembedding
 */
export function scoringParams(
  model: Model,
  params: Params,
  finish: (params: Params, x: tf.Tensor) => tf.Tensor = (_params, x) => x,
): tf.Tensor[] {
  const paths = pathsRead(params, (watched) => {
    const state = finish(watched, tf.zeros([1, 1, model.dModel]));
    crossEntropy(model, watched, state, tf.zeros([1, 1], 'int32'));
  });
  return paths.map((path) => params[path]!);
}
