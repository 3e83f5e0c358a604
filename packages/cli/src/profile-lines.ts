import type { KernelRow, ProfileResult } from '@llmx/core';

import { grouped, joined, table } from './format.ts';
import { style } from './style.ts';

/** Kernels that take less of the step than this are shown as one line. */
const SMALL_SHARE = 0.005;

const HEADER = ['kernel', '', 'calls', 'ms', 'share', 'MB', 'GB/s', 'GFLOP/s', 'reaches'];
/** Numbers end in one line. */
const RIGHT = [2, 3, 4, 5, 6, 7];

const count = (value: number): string => (Number.isInteger(value) ? grouped(value) : value.toFixed(1));
/** With two decimals where there is but one digit before them. */
const decimal = (value: number): string => value.toFixed(value < 10 ? 2 : 1);
const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)}%`;

type Summed = Pick<KernelRow, 'calls' | 'milliseconds' | 'share' | 'bytes' | 'gigabytesPerSecond'>;

const summedCells = ({ calls, milliseconds: time, share, bytes, gigabytesPerSecond }: Summed): string[] => [
  count(calls),
  decimal(time),
  percent(share),
  decimal(bytes / 1e6),
  bytes === 0 ? '' : decimal(gigabytesPerSecond),
];

const kernelCells = (row: KernelRow): string[] => [
  row.kernel,
  row.native === true ? 'native' : '',
  ...summedCells(row),
  row.gflops === null ? '' : decimal(row.gflops),
  row.limit === null ? '' : `${percent(row.limit.share, 0)} of ${row.limit.by}`,
];

/** Several kernels as one. */
function sumOf(rows: readonly KernelRow[]): Summed {
  const total = (value: (row: KernelRow) => number): number => rows.reduce((sum, row) => sum + value(row), 0);
  const [time, bytes] = [total((row) => row.milliseconds), total((row) => row.bytes)];
  return {
    calls: total(({ calls }) => calls),
    milliseconds: time,
    share: total(({ share }) => share),
    bytes,
    gigabytesPerSecond: time === 0 ? 0 : bytes / (time * 1e6),
  };
}

function othersCells(rows: readonly KernelRow[]): string[][] {
  if (rows.length === 0) return [];
  return [[`others (${rows.length} ${rows.length === 1 ? 'kernel' : 'kernels'})`, '', ...summedCells(sumOf(rows))]];
}

/** The lines that `llmx profile` prints; `all`: every kernel has a line of its own. */
export function profileLines(result: ProfileResult, all: boolean): string[] {
  const { kernels, peaks, phases, steps, warmup, stepMilliseconds: step } = result;
  const isShown = ({ share }: KernelRow): boolean => all || share >= SMALL_SHARE;
  const inKernels = sumOf(kernels);
  const outside = step - result.kernelMilliseconds;
  const [header = '', ...lines] = table(
    [
      HEADER,
      ...kernels.filter(isShown).map(kernelCells),
      ...othersCells(kernels.filter((row) => !isShown(row))),
      ['sum of kernels', '', ...summedCells(inKernels)],
      ['outside kernels (JavaScript, tape)', '', '', decimal(outside), percent(step === 0 ? 0 : outside / step)],
      ['step', '', '', decimal(step), percent(1)],
    ],
    RIGHT,
  );
  const threads = `${peaks.threads} ${peaks.threads === 1 ? 'thread' : 'threads'}`;
  return [
    `${steps} ${steps === 1 ? 'step' : 'steps'} of ${grouped(result.tokensPerStep)} tokens on ${result.backend}, means after ${warmup} to warm up`,
    `at best  memory ${decimal(peaks.gigabytesPerSecond)} GB/s, arithmetic ${decimal(peaks.gflops)} GFLOP/s: measured with ${threads}`,
    '',
    style('bold', header),
    ...lines.slice(0, -3),
    '',
    ...lines.slice(-3),
    '',
    joined('phases ', ...Object.entries(phases).map(([name, time]) => `${name} ${decimal(time)} ms`)),
    `speed    ${grouped(result.tokensPerSecond)} tokens/s`,
  ];
}
