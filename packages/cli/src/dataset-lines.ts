import type { DatasetInfo } from '@llmx/core';

import { grouped, table } from './format.ts';

/** A table of a dataset's splits. */
export function splitLines({ splits }: Pick<DatasetInfo, 'splits'>): string[] {
  const rows = Object.entries(splits).map(([name, { documents, tokens, bytes }]) => [
    `  ${name}`,
    grouped(documents),
    grouped(tokens),
    grouped(bytes),
  ]);
  return table([['  split', 'documents', 'tokens', 'bytes'], ...rows], [1, 2, 3]);
}
