import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { readMetrics, train } from '@llmx/core';
import { afterAll, beforeAll, expect, test } from 'vitest';

import multiToken from '../packages/plugin-mtp/src/index.ts';
import { environment, prepareTexts } from './support/in-process.ts';

let folder: string;
beforeAll(async () => {
  folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-short-')));
  // Two tokens each, the end of text included.
  const texts = Array.from({ length: 100 }, (_, index) => String.fromCharCode(97 + (index % 26)));
  await prepareTexts(environment(folder, []), texts);
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

test.each(['multi-token', 'multi-token-sequential'])(
  '%s trains the next token where every document is shorter than the tokens ahead',
  async (name) => {
    const config = {
      data: { train: 'data', packing: 'documents' },
      model: { dModel: 8, contextLength: 8, blocks: [{ block: 'attention', repeat: 1, heads: 2 }] },
      objective: { name, tokens: 4, normalize: 'heads' },
      optimizer: { name: 'adamw', lr: 0.05 },
      train: { steps: 10, batchSize: 2, evalEvery: 0, logEvery: 1 },
      backend: 'wasm',
    };
    fs.writeFileSync(path.join(folder, `${name}.json`), JSON.stringify(config));
    const { runDir } = await train({ file: `${name}.json`, name }, environment(folder, [multiToken]));
    const records = readMetrics(path.join(runDir, 'metrics.jsonl')).map(({ metrics }) => metrics);
    expect(records).toHaveLength(10);
    for (const metrics of records) {
      expect(metrics['loss']).toBeCloseTo(metrics['loss/head1']!, 6);
      expect([2, 3, 4].map((head) => metrics[`loss/head${head}`])).toEqual([0, 0, 0]);
      expect(Object.values(metrics).every((value) => Number.isFinite(value))).toBe(true);
    }
    expect(records.at(-1)!['loss']).toBeLessThan(records[0]!['loss']! - 0.5);
  },
);
