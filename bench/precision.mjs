// What `precision: bf16` costs in loss: the same training in fp32 and in bf16, on two seeds, the model and recipe of train/a.yaml.
// LLMX_BENCH_STEPS: steps of a run (300).
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { bytesTokenizer } from '../packages/core/dist/data/bytes-tokenizer.js';
import { prepare } from './train/data.mjs';
import { trainLlmx } from './train/sides.mjs';

export const name = 'precision';

const SEEDS = [1, 2];
const { LLMX_BENCH_STEPS: steps = '300' } = process.env;

export async function run() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-bench-precision-'));
  try {
    const { dataset } = prepare(folder, { name: 'bytes', instance: bytesTokenizer.build({}, {}) });
    const file = fileURLToPath(new URL('train/a.yaml', import.meta.url));
    const rows = [];
    for (const seed of SEEDS) {
      const train = (precision) => {
        const settings = {
          'data.train': dataset,
          backend: 'native',
          precision,
          'train.seed': seed,
          'train.steps': steps,
        };
        const sets = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
        return trainLlmx({ file, sets, folder });
      };
      const [fp32, bf16] = [await train('fp32'), await train('bf16')];
      rows.push({
        name: `seed ${seed}: loss around step ${steps}, bf16`,
        value: bf16.loss,
        unit: 'nats per token',
        ratio: bf16.loss / fp32.loss,
        yardstick: 'fp32, the same batches',
      });
    }
    return rows;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
