import type { z } from 'zod';

import { defineOptimizer } from '../plugin/define.ts';
import type { Component, ElementwiseRule, Expression, Optimizer, Params } from '../plugin/types.ts';
import { at, elementwise, type ElementwiseFunction, expr, mapParams, tf } from '../tensor/index.ts';

/** One float32 buffer per parameter and slot: `<slot>/<path>` in a checkpoint. */
type SlotState = Readonly<Record<string, Params>>;

const { float32, mul, sub } = expr;

/** p - lr * (direction + decay * p), and the next slots; with `isScaled` the gradient is that of the inputs times a factor. */
function updateOf(rule: ElementwiseRule, isScaled: boolean): ElementwiseFunction {
  const inputs = ['parameter', 'gradient', ...rule.slots, ...(isScaled ? ['gradientFactor'] : [])];
  const scalars = ['lr', 'decay', ...Object.keys(rule.scalars(1))];
  return elementwise({ inputs, scalars, overwrite: ['parameter', ...rule.slots] }, (expressions) => {
    const { parameter, gradient, gradientFactor, lr, decay } = expressions as Record<string, Expression>;
    const next = rule.direction({
      gradient: isScaled ? float32(mul(gradient!, gradientFactor!)) : gradient!,
      parameter: parameter!,
      slots: expressions,
      scalars: expressions,
    });
    const shrunk = mul(parameter!, sub(1, mul(lr!, decay!)));
    return { ...next.slots, parameter: sub(shrunk, mul(lr!, next.direction)) };
  });
}

/** The optimizer that applies a rule's direction: p <- p - lr * (direction + decay * p), in one pass per parameter. */
export function elementwiseOptimizer(rule: ElementwiseRule): Optimizer<SlotState> {
  const [updated, updatedScaled] = [updateOf(rule, false), updateOf(rule, true)];
  return {
    elementwise: rule,
    takesGradientFactor: true,
    init(params) {
      rule.checkPaths?.(Object.keys(params));
      return Object.fromEntries(rule.slots.map((slot) => [slot, mapParams(params, (value) => tf.zerosLike(value))]));
    },
    update({ grads, params, state, lr, step, gradientFactor }) {
      const numbers = rule.scalars(step);
      const [update, factor] = gradientFactor ? [updatedScaled, { gradientFactor }] : [updated, {}];
      const nextParams: Record<string, tf.Tensor> = {};
      const nextState: Record<string, Record<string, tf.Tensor>> = {};
      for (const [path, parameter] of Object.entries(params)) {
        const slots = Object.fromEntries(rule.slots.map((slot) => [slot, at(state[slot]!, path)]));
        const inputs = { parameter, gradient: at(grads, path), ...slots, ...factor };
        const next = update(inputs, { lr, decay: rule.decay(path, parameter.shape), ...numbers });
        nextParams[path] = next['parameter']!;
        for (const slot of rule.slots) (nextState[slot] ??= {})[path] = next[slot]!;
      }
      return { params: nextParams, state: nextState };
    },
  };
}

/** An optimizer given by its per-element rule alone. */
export function defineElementwiseOptimizer<C extends z.ZodType>(
  spec: Omit<Component<'optimizer', C>, 'kind' | 'build'> & { rule(config: z.output<C>): ElementwiseRule },
): Component<'optimizer', C> {
  const { rule, ...rest } = spec;
  return defineOptimizer({ ...rest, build: (config) => elementwiseOptimizer(rule(config)) });
}
