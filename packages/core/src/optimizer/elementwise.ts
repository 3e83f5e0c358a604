import type { z } from 'zod';

import { defineOptimizer } from '../plugin/define.ts';
import type { Component, ElementwiseRule, Optimizer, Params } from '../plugin/types.ts';
import { at, compile, expr, mapParams, type Program, runProgram, tf } from '../tensor/index.ts';
import { inputExpression, scalarExpression } from '../tensor/expression.ts';

/** One float32 buffer per parameter and slot: `<slot>/<path>` in a checkpoint. */
type SlotState = Readonly<Record<string, Params>>;

/** p - lr * (direction + decay * p), and the next slots; inputs are p, g and the slots, scalars lr, decay and others. */
function updateProgram(rule: ElementwiseRule): Program {
  const [parameter, gradient] = [inputExpression(0), inputExpression(1)];
  const slots = Object.fromEntries(rule.slots.map((slot, index) => [slot, inputExpression(2 + index)]));
  const [lr, decay] = [scalarExpression(0), scalarExpression(1)];
  const names = Object.keys(rule.scalars(1));
  const scalars = Object.fromEntries(names.map((name, index) => [name, scalarExpression(2 + index)]));
  const next = rule.direction({ gradient, parameter, slots, scalars });
  const shrunk = expr.mul(parameter, expr.sub(1, expr.mul(lr, decay)));
  const updated = expr.sub(shrunk, expr.mul(lr, next.direction));
  return compile([updated, ...rule.slots.map((slot) => next.slots[slot]!)], 2 + rule.slots.length, 2 + names.length);
}

/** The optimizer that applies a rule's direction: p <- p - lr * (direction + decay * p), in one pass per parameter. */
export function elementwiseOptimizer(rule: ElementwiseRule): Optimizer<SlotState> {
  const program = updateProgram(rule);
  return {
    elementwise: rule,
    init(params) {
      const paths = Object.keys(params);
      rule.checkPaths?.(paths);
      return Object.fromEntries(rule.slots.map((slot) => [slot, mapParams(params, (value) => tf.zerosLike(value))]));
    },
    update({ grads, params, state, lr, step }) {
      const numbers = Object.values(rule.scalars(step));
      const nextParams: Record<string, tf.Tensor> = {};
      const nextState: Record<string, Record<string, tf.Tensor>> = {};
      for (const [path, value] of Object.entries(params)) {
        const slots = rule.slots.map((slot) => at(state[slot]!, path));
        const scalars = [lr, rule.decay(path, value.shape), ...numbers];
        const [updated, ...nextSlots] = runProgram(program, [value, at(grads, path), ...slots], scalars);
        nextParams[path] = updated!;
        for (const [index, slot] of rule.slots.entries()) (nextState[slot] ??= {})[path] = nextSlots[index]!;
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
