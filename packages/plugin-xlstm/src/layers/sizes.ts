import { LlmxError } from '@llmx/core';

/** Standard deviation of most initial weights (Nguyen & Salazar, arXiv 1910.05895). */
export const smallStd = (dModel: number): number => Math.sqrt(2 / (5 * dModel));

/** That of the maps which end a residual branch: smaller in deep models (Wang & Komatsuzaki, GPT-J, 2021). */
export const outputStd = (dModel: number, depth: number): number => 2 / (depth * Math.sqrt(dModel));

/** `factor` times the hidden size, rounded up to a multiple of 64. */
export const innerWidth = (dModel: number, factor: number): number => 64 * Math.ceil((factor * dModel) / 64);

/** The same as the reference of xLSTM 7B rounds it: less than 1 above a multiple of 64 counts as that multiple. */
export const largeHiddenWidth = (dModel: number, factor: number): number =>
  64 * Math.floor((factor * dModel + 63) / 64);

/**
 * @param width named by `what` in the message
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function checkDivides(what: string, width: number, option: string, divisor: number): void {
  if (width % divisor === 0) return;
  const divisors = Array.from({ length: width }, (_, index) => index + 1).filter((count) => width % count === 0);
  const nearest = divisors.reduce((best, next) => (Math.abs(next - divisor) < Math.abs(best - divisor) ? next : best));
  throw new LlmxError('LLMX_CONFIG_INVALID', `${what} ${width} is not a multiple of ${option} ${divisor}.`, {
    hint: `Set ${option} to ${nearest}, or change dModel.`,
  });
}
