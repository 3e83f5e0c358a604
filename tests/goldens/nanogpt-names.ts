import type { Params } from '../../packages/core/src/plugin/types.ts';
import { at, tf } from '../../packages/core/src/tensor/index.ts';

/** Where a reference parameter's values are in ours. Reference weights are [outputs, inputs], ours [inputs, outputs]. */
interface Place {
  /** Our parameters; several where the reference holds them as one, joined along outputs. */
  readonly paths: readonly string[];
  readonly transposed: boolean;
}

const BLOCK_PARTS: Readonly<Record<string, readonly string[]>> = {
  ln_1: ['attention.norm'],
  'attn.c_attn': ['attention.query', 'attention.key', 'attention.value'],
  'attn.c_proj': ['attention.output'],
  ln_2: ['feedForward.norm'],
  'mlp.c_fc': ['feedForward.up'],
  'mlp.c_proj': ['feedForward.down'],
};

function place(reference: string): Place {
  if (reference === 'transformer.wte.weight') return { paths: ['embedding.tokens'], transposed: false };
  if (reference === 'transformer.wpe.weight') return { paths: ['embedding.positions'], transposed: false };
  const final = /^transformer\.ln_f\.(weight|bias)$/u.exec(reference);
  if (final !== null) return { paths: [`norm.${final[1]}`], transposed: false };
  const inBlock = /^transformer\.h\.(\d+)\.(.+)\.(weight|bias)$/u.exec(reference);
  const parts = BLOCK_PARTS[inBlock?.[2] ?? ''];
  if (inBlock === null || parts === undefined) throw new Error(`Unknown nanoGPT parameter "${reference}".`);
  const [, index, part, leaf] = inBlock;
  return {
    paths: parts.map((name) => `blocks.${index}.${name}.${leaf}`),
    transposed: leaf === 'weight' && !part!.startsWith('ln_'),
  };
}

/** The map between nanoGPT's parameter names and layouts and ours, both ways. */
export function nanogptNames(references: readonly string[]) {
  return {
    fromReference(read: (reference: string) => tf.Tensor): Params {
      const entries = references.flatMap((reference) => {
        const { paths, transposed } = place(reference);
        return tf
          .split(read(reference), paths.length, 0)
          .map((part, index): [string, tf.Tensor] => [paths[index]!, transposed ? tf.transpose(part) : part]);
      });
      return Object.fromEntries(entries);
    },
    toReference(params: Params, reference: string): tf.Tensor {
      const { paths, transposed } = place(reference);
      return tf.concat(
        paths.map((path) => (transposed ? tf.transpose(at(params, path)) : at(params, path))),
        0,
      );
    },
  };
}
