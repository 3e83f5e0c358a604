import type { KernelRow, ProfileResult } from '@llmx/core';
import { expect, test } from 'vitest';

import { profileLines } from './profile-lines.ts';

const kernel = (name: string, milliseconds: number, more: Partial<KernelRow> = {}): KernelRow => ({
  kernel: name,
  native: null,
  calls: 4,
  milliseconds,
  share: milliseconds / 1000,
  bytes: 1e6,
  gigabytesPerSecond: 1 / milliseconds,
  gflops: null,
  limit: { by: 'memory', share: 0.05 },
  ...more,
});

const result: ProfileResult = {
  backend: 'native',
  steps: 5,
  warmup: 2,
  tokensPerStep: 3072,
  tokensPerSecond: 3072,
  stepMilliseconds: 1000,
  kernelMilliseconds: 918.6,
  phases: { forward: 300, backward: 600.25, optimizer: 9.875 },
  peaks: { gflops: 430, gigabytesPerSecond: 25, threads: 2 },
  kernels: [
    kernel('LlmxMatmul', 900, {
      native: true,
      bytes: 1.5e9,
      gigabytesPerSecond: 1.67,
      gflops: 290,
      limit: { by: 'arithmetic', share: 0.674 },
    }),
    kernel('Transpose', 5, { native: false, calls: 1234.4 }),
    kernel('Softmax', 4.9),
    kernel('Sum', 4.9),
    kernel('Reshape', 3.8, { bytes: 0, gigabytesPerSecond: 0, limit: null }),
  ],
  trace: null,
};

test('kernels, what is in none, phases and speed; small kernels in one line', () => {
  expect(profileLines(result, false).join('\n')).toMatchInlineSnapshot(`
    "5 steps of 3,072 tokens on native, means after 2 to warm up
    at best  memory 25.0 GB/s, arithmetic 430.0 GFLOP/s: measured with 2 threads

    kernel                                       calls      ms   share      MB  GB/s  GFLOP/s  reaches
    LlmxMatmul                          native       4   900.0   90.0%  1500.0  1.67    290.0  67% of arithmetic
    Transpose                                   1234.4    5.00    0.5%    1.00  0.20           5% of memory
    others (3 kernels)                              12    13.6    1.4%    2.00  0.15

    sum of kernels                              1250.4   918.6   91.9%  1503.0  1.64
    outside kernels (JavaScript, tape)                    81.4    8.1%
    step                                                1000.0  100.0%

    phases   forward 300.0 ms  backward 600.3 ms  optimizer 9.88 ms
    speed    3,072 tokens/s"
  `);
});

test('every kernel in a line of its own', () => {
  const lines = profileLines(result, true);
  expect(lines.filter((line) => /^(Softmax|Sum|Reshape) /.test(line))).toMatchInlineSnapshot(`
    [
      "Softmax                                          4    4.90    0.5%    1.00  0.20           5% of memory",
      "Sum                                              4    4.90    0.5%    1.00  0.20           5% of memory",
      "Reshape                                          4    3.80    0.4%    0.00",
    ]
  `);
  expect(lines.join('\n')).not.toContain('others');
});

test('one small kernel, and no small kernel', () => {
  const others = (kernels: readonly KernelRow[]): string[] =>
    profileLines({ ...result, kernels }, false).filter((line) => line.startsWith('others'));
  expect(others([kernel('Sum', 1)])).toEqual([expect.stringMatching(/^others \(1 kernel\) /)]);
  expect(others([kernel('Sum', 500)])).toEqual([]);
});
