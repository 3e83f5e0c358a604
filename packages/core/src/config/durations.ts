import { z } from 'zod';

import { LlmxError } from '../errors/index.ts';

const FORMS = 'steps as an integer (1000), tokens (100Mtok; k, M, G or T), or a share of the run (5%)';
const RUN_FORMS = 'steps as an integer (1000) or tokens (100Mtok; k, M, G or T)';
const TOKEN_FORMS = 'a number of tokens (1000000 or 1Mtok; k, M, G or T)';
const PATTERN = /^(\d+(?:\.\d+)?)([kMGT]?tok|%)$/;
const TOKENS_PATTERN = /^\d+(?:\.\d+)?[kMGT]?tok$/;
const MULTIPLES: Readonly<Record<string, number>> = { tok: 1, ktok: 1e3, Mtok: 1e6, Gtok: 1e9, Ttok: 1e12 };

/** Steps, tokens or a share of the run; for options of components too. 0 where a thing can be off. */
export const durationSchema = z.union([z.int().min(0), z.string().regex(PATTERN, { error: `expected ${FORMS}` })], {
  error: `expected ${FORMS}`,
});

/** The length of the run itself, which cannot be a share of itself. */
export const runLengthSchema = z.union(
  [z.int().min(1), z.string().regex(TOKENS_PATTERN, { error: `expected ${RUN_FORMS}` })],
  { error: `expected ${RUN_FORMS}` },
);

const TIME_FORMS = 'a time: 90s, 45min, 11.5h or 2d';
const TIME_PATTERN = /^(?=.*[1-9])(\d+(?:\.\d+)?)(s|min|h|d)$/;
const MILLISECONDS: Readonly<Record<string, number>> = { s: 1e3, min: 6e4, h: 3.6e6, d: 8.64e7 };

/** A length of time above 0. */
export const timeSchema = z.string().regex(TIME_PATTERN, { error: `expected ${TIME_FORMS}` });

const SIZE_PATTERN = /^(?=.*[1-9])(\d+(?:\.\d+)?)(MiB|GiB)$/;
/** An amount of memory above 0. */
export const sizeSchema = z.string().regex(SIZE_PATTERN, { error: 'expected a size: 900MiB or 12GiB' });

/** A size of `sizeSchema` in bytes. */
export function sizeOf(size: string): number {
  const [, amount, unit] = SIZE_PATTERN.exec(size) ?? [];
  return Number(amount) * (unit === 'GiB' ? 2 ** 30 : 2 ** 20);
}

/** A number of tokens. */
export const tokensSchema = z.union(
  [z.int().min(1), z.string().regex(TOKENS_PATTERN, { error: `expected ${TOKEN_FORMS}` })],
  { error: `expected ${TOKEN_FORMS}` },
);

export interface DurationScale {
  /** Tokens that one optimizer step consumes: batch size x accumulation x context length. */
  readonly tokensPerStep: number;
  /** Length of the run in steps; absent while that itself is worked out. */
  readonly totalSteps?: number;
}

/**
 * A duration in steps: tokens round up to whole steps, a share to the nearest step but at least one; 0 stays 0.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function stepsOf(duration: number | string, { tokensPerStep, totalSteps }: DurationScale): number {
  if (typeof duration === 'number') {
    if (!Number.isSafeInteger(duration) || duration < 0) throw invalid(duration);
    return duration;
  }
  const [, digits, unit] = PATTERN.exec(duration) ?? [];
  if (digits === undefined || unit === undefined) throw invalid(duration);
  const amount = Number(digits);
  if (unit !== '%') return Math.ceil(Math.round(amount * (MULTIPLES[unit] ?? 1)) / tokensPerStep);
  if (totalSteps === undefined) throw invalid(duration, RUN_FORMS);
  return amount === 0 ? 0 : Math.max(1, Math.round((amount / 100) * totalSteps));
}

/** A number of `tokensSchema`. */
export const tokensOf = (tokens: number | string): number =>
  typeof tokens === 'number' ? tokens : stepsOf(tokens, { tokensPerStep: 1 });

/**
 * A time of `timeSchema` in milliseconds.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function millisecondsOf(time: string): number {
  const [, amount, unit] = TIME_PATTERN.exec(time) ?? [];
  if (amount === undefined || unit === undefined) throw invalid(time, TIME_FORMS);
  return Number(amount) * (MILLISECONDS[unit] ?? 1);
}

const invalid = (duration: number | string, forms = FORMS): LlmxError =>
  new LlmxError('LLMX_CONFIG_INVALID', `The duration ${JSON.stringify(duration)} is not usable: expected ${forms}.`);
