import type { RunConfig } from '../config/schema.ts';
import { LlmxError } from '../errors/index.ts';
import type { Registry } from '../plugin/registry.ts';
import type { DatasetInfo, Tokenizer, TokenReader } from '../plugin/types.ts';

/** A prepared dataset and the tokenizer it was made with. */
export interface Dataset {
  readonly path: string;
  readonly info: DatasetInfo;
  readonly tokenizer: Tokenizer;
  /**
   * @throws LlmxError `LLMX_DATASET_MISSING` where there is no such split
   */
  split(name: string): TokenReader;
}

/** What identifies a tokenizer, in datasets and checkpoints. */
export interface TokenizerId {
  readonly name: string;
  readonly hash: string;
}

/**
 * The tokenizer of that name, which must be the one that was used.
 *
 * @param where what was made with it, for the message
 * @throws LlmxError `LLMX_TOKENIZER_MISMATCH`, `LLMX_COMPONENT_UNKNOWN`
 */
export function openTokenizer(registry: Registry, { name, hash }: TokenizerId, where: string): Tokenizer {
  const tokenizer = registry.create('tokenizer', { name }, {});
  if (tokenizer.hash !== hash)
    throw new LlmxError(
      'LLMX_TOKENIZER_MISMATCH',
      `${where} was made with another version of the tokenizer "${name}": ${hash.slice(0, 12)}, here it is ${tokenizer.hash.slice(0, 12)}.`,
      { hint: 'Prepare the data again, or use the version of llmx or of the plugin that made it.' },
    );
  return tokenizer;
}

/**
 * Opens a dataset with the source that the configuration names.
 *
 * @throws LlmxError `LLMX_DATASET_MISSING`, `LLMX_DATASET_DAMAGED`, `LLMX_TOKENIZER_MISMATCH`
 */
export function openConfiguredDataset(
  registry: Registry,
  { source, train: path }: Pick<RunConfig['data'], 'source' | 'train'>,
): Dataset {
  const { info, split } = registry.create('source', source, {}).open(path);
  return { path, info, tokenizer: openTokenizer(registry, info.tokenizer, `The dataset "${path}"`), split };
}
