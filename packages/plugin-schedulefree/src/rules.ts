/** Directions of the base optimizers that are made schedule-free. */
import { decayRule, type ElementwiseRule, expr } from '@llmx/core';

const { add, div, mul, select, sqrt, square } = expr;

type Decay = Parameters<typeof decayRule>[0];

interface AdaptiveOptions extends Decay {
  readonly beta2: number;
  readonly epsilon: number;
  /** Momentum of the base itself; 0: none, and no buffer. */
  readonly innerMomentum: number;
  /** Whether a step divides by the second moment; else its direction is the gradient. */
  readonly isAdaptive?: (step: number) => boolean;
}

/**
 * The gradient over the root of its second moment, both corrected for their start at 0:
 *
 *     v = beta2 v + (1 - beta2) g^2
 *     m = mu m + (1 - mu) g                      with inner momentum mu, else g itself
 *     direction = (m / (1 - mu^step)) / (sqrt(v / (1 - beta2^step)) + epsilon)
 */
export function adaptiveRule(options: AdaptiveOptions): ElementwiseRule {
  const { beta2, epsilon, innerMomentum: mu, isAdaptive = () => true } = options;
  return {
    ...decayRule(options),
    slots: mu === 0 ? ['v'] : ['v', 'm'],
    scalars: (step) => ({
      correction: 1 - beta2 ** step,
      innerCorrection: 1 - mu ** step,
      adaptive: isAdaptive(step) ? 1 : 0,
    }),
    direction({ gradient, slots: { v, m }, scalars: { correction, innerCorrection, adaptive } }) {
      const second = add(mul(beta2, v!), mul(1 - beta2, square(gradient)));
      const inner = m && add(mul(mu, m), mul(1 - mu, gradient));
      const numerator = inner ? div(inner, innerCorrection!) : gradient;
      const scaled = div(numerator, add(sqrt(div(second, correction!)), epsilon));
      return { direction: select(adaptive!, scaled, gradient), slots: { v: second, ...(inner && { m: inner }) } };
    },
  };
}

/** The gradient itself; no buffer. */
export const gradientRule = (options: Decay): ElementwiseRule => ({
  ...decayRule(options),
  slots: [],
  scalars: () => ({}),
  direction: ({ gradient }) => ({ direction: gradient, slots: {} }),
});

/**
 * Rectification of the second moment's variance in the first steps (Liu et al., arXiv 1908.03265, section 4): the factor
 * of the learning rate, or nothing where the second moment rests on too few gradients to be divided by.
 */
export function rectification(beta2: number, step: number): number | undefined {
  const limit = 2 / (1 - beta2) - 1;
  const rho = limit - (2 * step * beta2 ** step) / (1 - beta2 ** step);
  if (rho <= 4) return undefined;
  return Math.sqrt(((rho - 4) * (rho - 2) * limit) / ((limit - 4) * (limit - 2) * rho));
}
