import type { Params } from '../../packages/core/src/plugin/types.ts';
import { at, tf } from '../../packages/core/src/tensor/index.ts';
import { nanogptNames } from './nanogpt-names.ts';

/** A reference parameter as nanoGPT would call it, and where the block of that name is in ours. */
interface Alias {
  readonly nanogpt: string;
  /** Our path of a path that `nanogptNames` gives. */
  rename(path: string): string;
}

const unchanged = (path: string): string => path;

/** The reference's first head is our model's last block; the others belong to the objective. */
function alias(reference: string, trunkLayers: number): Alias {
  const [part, index, ...rest] = reference.split('.');
  if (part === 'wte' || part === 'wpe' || part === 'ln_f')
    return { nanogpt: `transformer.${reference}`, rename: unchanged };
  const layer = (position: number) => `transformer.h.${position}.${rest.join('.')}`;
  if (part === 'trunk') return { nanogpt: layer(Number(index)), rename: unchanged };
  if (part !== 'heads') throw new Error(`Unknown reference parameter "${reference}".`);
  if (index === '0') return { nanogpt: layer(trunkLayers), rename: unchanged };
  const head = `objective.heads.${Number(index) + 1}.block.`;
  return { nanogpt: layer(0), rename: (path) => path.replace(/^blocks\.0\./u, head) };
}

/** The map between the reference's parameter names and layouts and ours, both ways. */
export function mtpNames(references: readonly string[], trunkLayers: number) {
  return {
    fromReference(read: (reference: string) => tf.Tensor): Params {
      const entries = references.flatMap((reference): [string, tf.Tensor][] => {
        if (reference === 'lm_head.weight') return [['head.weight', tf.transpose(read(reference))]];
        const { nanogpt, rename } = alias(reference, trunkLayers);
        const params = nanogptNames([nanogpt]).fromReference(() => read(reference));
        return Object.entries(params).map(([path, value]) => [rename(path), value]);
      });
      return Object.fromEntries(entries);
    },
    toReference(params: Params, reference: string): tf.Tensor {
      if (reference === 'lm_head.weight') return tf.transpose(at(params, 'head.weight'));
      const { nanogpt, rename } = alias(reference, trunkLayers);
      const renamed = new Proxy(params, { get: (target, path) => target[rename(String(path))] });
      return nanogptNames([]).toReference(renamed, nanogpt);
    },
  };
}
