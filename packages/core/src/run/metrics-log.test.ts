import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { MetricsLog, type MetricsRecord, readMetrics } from './metrics-log.ts';

let folder: string;
let file: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-metrics-'));
  file = path.join(folder, 'metrics.jsonl');
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

const train = (step: number, loss = 1 / step): MetricsRecord => ({ kind: 'train', step, metrics: { loss } });

function append(step: number, ...records: MetricsRecord[]): void {
  const log = MetricsLog.open(file, { step, evaluated: true });
  records.forEach((record) => log.append(record));
  log.close();
}

const text = (): string => fs.readFileSync(file, 'utf8');

test('writes one line per record, and reads it back', () => {
  const records: MetricsRecord[] = [
    { kind: 'train', step: 1, metrics: { loss: 2.5, gradNorm: Number.NaN, 'a "b"\n': -Infinity } },
    { kind: 'eval', step: 1, metrics: { loss: Infinity, zero: 0, tiny: 5e-324 } },
  ];
  append(0, ...records);
  expect(text()).toMatchInlineSnapshot(`
    "{"kind":"train","step":1,"loss":2.5,"gradNorm":"NaN","a \\"b\\"\\n":"-Infinity"}
    {"kind":"eval","step":1,"loss":"Infinity","zero":0,"tiny":5e-324}
    "
  `);
  expect(readMetrics(file)).toEqual(records);
});

test('metrics called kind or step do not hide the real ones', () => {
  append(0, { kind: 'train', step: 3, metrics: { step: 9, loss: 1 } });
  expect(readMetrics(file)).toEqual([train(3, 1)]);
});

test('every line is in the file at once', () => {
  const log = MetricsLog.open(file, { step: 0, evaluated: false });
  log.append(train(1));
  expect(readMetrics(file)).toEqual([train(1)]);
  log.close();
});

test('no file, no records', () => expect(readMetrics(file)).toEqual([]));

describe('opening', () => {
  test('cuts back to the step that a run continues from', () => {
    append(0, train(1), train(2), { kind: 'eval', step: 2, metrics: { loss: 1 } }, train(3));
    append(2, train(3, 7));
    expect(readMetrics(file)).toEqual([
      train(1),
      train(2),
      { kind: 'eval', step: 2, metrics: { loss: 1 } },
      train(3, 7),
    ]);
    append(0);
    expect(text()).toBe('');
  });

  test('cuts an evaluation that the run will do again', () => {
    const evaluation: MetricsRecord = { kind: 'eval', step: 2, metrics: { loss: 1 } };
    append(0, train(1), train(2), evaluation, train(3));
    MetricsLog.open(file, { step: 2, evaluated: false }).close();
    expect(readMetrics(file)).toEqual([train(1), train(2)]);
    append(2, evaluation);
    MetricsLog.open(file, { step: 2, evaluated: true }).close();
    expect(readMetrics(file)).toEqual([train(1), train(2), evaluation]);
  });

  test('drops a torn last line, wherever it was torn', () => {
    append(0, train(1), train(2));
    const [first = '', second = ''] = text().split('\n');
    for (let length = 0; length <= second.length; length++) {
      fs.writeFileSync(file, `${first}\n${second.slice(0, length)}`);
      expect(readMetrics(file)).toEqual([train(1)]);
      append(9, train(2));
      expect(text()).toBe(`${first}\n${second}\n`);
    }
  });

  test('drops what a power failure spoilt', () => {
    append(0, train(1));
    fs.appendFileSync(file, Buffer.concat([Buffer.alloc(5000), Buffer.from('\n{"kind":"train","step":2,"loss":1}\n')]));
    append(9, train(2));
    expect(readMetrics(file)).toEqual([train(1), train(2)]);
  });

  test('handles lines across the pieces in which a file is read', () => {
    const name = '\u00e9\u{1f600}'.repeat(9);
    const records = Array.from({ length: 3000 }, (_, index) => ({ ...train(index + 1), metrics: { [name]: 0.5 } }));
    append(0, ...records);
    expect(fs.statSync(file).size).toBeGreaterThan(3 * 65536);
    append(2500);
    expect(readMetrics(file)).toEqual(records.slice(0, 2500));
  });

  test('leaves a log that fits untouched', () => {
    append(0, train(1));
    const { mtimeMs } = fs.statSync(file);
    append(1);
    expect(fs.statSync(file).mtimeMs).toBe(mtimeMs);
  });
});

test('a line that is no record is named', () => {
  append(0, train(1));
  for (const line of [
    '{"kind":"train"}',
    'null',
    '{"kind":"train","step":1,"loss":"high"}',
    '{"kind":"other","step":1}',
    '',
  ]) {
    fs.writeFileSync(file, `${JSON.stringify({ kind: 'eval', step: 1 })}\n${line}\n`);
    expect(() => readMetrics(file)).toThrow(`Line 2 of "${file}" is not a metrics record.`);
  }
});

const LOG_URL = new URL('../../dist/run/metrics-log.js', import.meta.url).href;
const hasUlimit = process.platform !== 'win32' && spawnSync('bash', ['-c', 'ulimit -f 8']).status === 0;
// Skipped where bash cannot limit the size of files (Windows).
test.skipIf(!hasUlimit)('a file-size limit is LLMX_DISK_FULL, and the log keeps whole lines', () => {
  const program = `
    import { MetricsLog } from ${JSON.stringify(LOG_URL)};
    const log = MetricsLog.open(${JSON.stringify(file)}, { step: 0, evaluated: false });
    let step = 0;
    try {
      for (;;) log.append({ kind: 'train', step: ++step, metrics: { loss: 1 / 3 } });
    } catch ({ code }) {
      console.log(JSON.stringify({ code, step }));
    }`;
  const command = 'ulimit -f 8; exec "$0" --input-type=module -e "$1"';
  const output = execFileSync('bash', ['-c', command, process.execPath, program], { encoding: 'utf8' });
  const { code, step } = JSON.parse(output) as { code: string; step: number };
  expect(code).toBe('LLMX_DISK_FULL');
  expect(text().endsWith('\n')).toBe(true);
  expect(readMetrics(file).at(-1)?.step).toBe(step - 1);
});
