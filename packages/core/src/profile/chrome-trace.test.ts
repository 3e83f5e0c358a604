import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { afterAll, expect, test } from 'vitest';

import type { LlmxError } from '../errors/index.ts';
import { chromeTrace, checkTraceFile, writeTrace } from './chrome-trace.ts';
import { KernelTotals } from './kernel-totals.ts';
import { Recording } from './recording.ts';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-trace-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));
const file = (name: string): string => path.join(folder, name);

/** A step from 1000 to 1004 ms by a clock that moves at every look. */
function recorded(): Recording {
  let clock = 999;
  const peaks = { gflops: 1, gigabytesPerSecond: 1, threads: 1 };
  const recording = new Recording(() => ++clock, new KernelTotals(peaks), true);
  const info = { shape: [2, 2], dtype: 'float32', dataId: {} } as const;
  const call = { kernel: 'LlmxMatmul', start: 1001.25, milliseconds: 0.5, attributes: {} };
  const matrices = { inputs: { a: { ...info, dataId: {} }, b: { ...info, dataId: {} } }, outputs: [info] };
  recording.called({ ...call, ...matrices } as never); // before the step: not recorded
  recording.beginStep();
  recording.enter('forward');
  recording.called({ ...call, ...matrices } as never);
  recording.enter('backward');
  recording.endStep('step 3');
  recording.enter('optimizer'); // after it: not recorded
  return recording;
}

test('steps, phases and kernels in microseconds from the first step on', () => {
  const { traceEvents } = JSON.parse(chromeTrace(recorded(), 'a title')) as { traceEvents: object[] };
  expect(traceEvents).toEqual([
    { name: 'process_name', ph: 'M', pid: 1, tid: 0, args: { name: 'a title' } },
    { name: 'thread_name', ph: 'M', pid: 1, tid: 1, args: { name: 'kernels' } },
    { name: 'thread_name', ph: 'M', pid: 1, tid: 2, args: { name: 'steps and phases' } },
    { name: 'step 3', ph: 'X', pid: 1, tid: 2, ts: 0, dur: 4000 },
    { name: 'forward', ph: 'X', pid: 1, tid: 2, ts: 1000, dur: 1000 },
    { name: 'backward', ph: 'X', pid: 1, tid: 2, ts: 2000, dur: 1000 },
    {
      name: 'LlmxMatmul',
      ph: 'X',
      pid: 1,
      tid: 1,
      ts: 1250,
      dur: 500,
      args: { inputs: { a: [2, 2], b: [2, 2] }, outputs: [[2, 2]], bytes: 48, operations: 16 },
    },
  ]);
});

test('a trace takes the place of a trace, and of nothing else', () => {
  const failure = (name: string): string => {
    try {
      checkTraceFile(file(name));
    } catch (error) {
      const { code, message, hint } = error as LlmxError;
      return [code, message, hint].join('\n').replaceAll(folder, '<folder>');
    }
    return 'none';
  };
  expect(failure('trace.json')).toBe('none');
  writeTrace(file('trace.json'), recorded(), 'one');
  expect(failure('trace.json')).toBe('none');
  writeTrace(file('trace.json'), recorded(), 'two');
  expect(fs.readFileSync(file('trace.json'), 'utf8')).toBe(chromeTrace(recorded(), 'two'));
  expect(fs.readdirSync(folder)).toEqual(['trace.json']);

  fs.writeFileSync(file('config.yaml'), 'train: { steps: 1 }\n');
  expect(failure('config.yaml')).toMatchInlineSnapshot(`
    "LLMX_OUTPUT_EXISTS
    There is a file at "<folder>/config.yaml" already, and it is not a trace.
    Give the trace another name."
  `);
  fs.writeFileSync(file('empty'), '');
  expect(failure('empty')).toContain('LLMX_OUTPUT_EXISTS');
  expect(failure('.')).toMatchInlineSnapshot(`
    "LLMX_IO_FAILED
    Could not write "<folder>": illegal operation on a directory (EISDIR).
    Check that the path is right and that its permissions allow this."
  `);
  expect(failure('nowhere/trace.json')).toMatchInlineSnapshot(`
    "LLMX_IO_FAILED
    Could not write "<folder>/nowhere/trace.json": no such file or directory (ENOENT).
    Check that the path is right and that its permissions allow this."
  `);
  expect(failure('empty/trace.json')).toContain('not a directory (ENOTDIR)');
});
