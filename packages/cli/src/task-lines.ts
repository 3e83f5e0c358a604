import type { TaskResult } from '@llmx/core';

import { duration, table } from './format.ts';

const DIGITS = 4;

/** A task with its options, then a line for each of its numbers. */
export function taskLines({ task: { name, ...options }, metrics, seconds }: TaskResult): string[] {
  const given = Object.entries(options).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
  const head = given.length > 0 ? `${name} (${given.join(', ')})` : name;
  const rows = Object.entries(metrics).map(([metric, value]) => [`  ${metric}`, value.toPrecision(DIGITS)]);
  return [`${head}, ${duration(seconds)}:`, ...table(rows)];
}
