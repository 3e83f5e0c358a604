import {
  at,
  elementwise,
  type ElementwiseFunction,
  type ElementwiseRule,
  type Expression,
  expr,
  mapParams,
  type Optimizer,
  type Params,
  tf,
  z,
} from '@llmx/core';

const { add, div, float32, mul, sub } = expr;

/** Options of the average that every schedule-free optimizer has. */
export const averagingOptions = {
  r: z.number().default(0).describe('Power of the step number in the weights of the average.'),
  weightLrPower: z.number().min(0).default(2).describe('Power of the largest learning rate so far in those weights.'),
};

/** The option of those whose weight decay is not part of the method. */
export const decayPoint = {
  decayAt: z.enum(['y', 'z']).default('y').describe('The point that weight decay pulls towards 0.'),
};

/** Numbers of one step. */
export interface StepNumbers {
  /** Learning rate. */
  readonly lr: number;
  /** Interpolation with which the gradient's point y was made, and the one for the next y. */
  readonly betaBefore: number;
  readonly beta: number;
  /** Weight of the new fast iterate in the average. */
  readonly c: number;
  /** Factor of weight decay. */
  readonly decayFactor: number;
}

/** What a pace remembers from step to step. */
export type Memory = Readonly<Record<string, number>>;

/** How far a method goes at each step. */
export interface Pace {
  /** Before the first step. */
  readonly start: Memory;
  next(args: UpdateArguments, memory: Memory): { readonly numbers: StepNumbers; readonly memory: Memory };
  /** Interpolation with which the current y was made. */
  beta(memory: Memory): number;
}

export type UpdateArguments = Parameters<Optimizer<State>['update']>[0];

/** What is kept besides the parameters, which are y. The average x is computed from y and z when it is wanted. */
type State = {
  /** The fast iterate. */
  readonly z: Params;
  /** Buffers of the base. */
  readonly slots: Readonly<Record<string, Params>>;
  readonly memory: Memory;
};

/** x out of y = beta x + (1 - beta) z, which is all that is stored: y + (1 - 1 / beta) (z - y). */
const averageOf = (y: Expression, fast: Expression, beta: Expression): Expression =>
  add(y, mul(sub(1, div(1, beta)), sub(fast, y)));

const average = elementwise({ inputs: ['y', 'z'], scalars: ['beta'] }, ({ y, z: fast, beta }) => ({
  x: averageOf(y, fast, beta),
}));

/**
 * One step for every element, with d the direction of the base plus weight decay (Defazio et al., arXiv 2405.15682,
 * equations 3 to 5):
 *
 *     z' = z - lr d
 *     x' = (1 - c) x + c z'
 *     y' = beta x' + (1 - beta) z'
 *
 * All in differences, so that points which agree stay equal bit for bit. With `isScaled` the gradient is that of the inputs
 * times a factor.
 */
function updateOf(rule: ElementwiseRule, decayAt: 'y' | 'z', isScaled: boolean): ElementwiseFunction {
  const numbers = ['lr', 'decay', 'betaBefore', 'beta', 'c'] as const;
  const inputs = ['y', 'z', 'gradient', ...rule.slots, ...(isScaled ? ['gradientFactor'] : [])];
  const scalars = [...numbers, ...Object.keys(rule.scalars(1))];
  return elementwise({ inputs, scalars, overwrite: ['y', 'z', ...rule.slots] }, (expressions) => {
    const {
      y,
      z: fast,
      gradient: given,
      gradientFactor,
      lr,
      decay,
      betaBefore,
      beta,
      c,
    } = expressions as Record<'y' | 'z' | 'gradient' | 'gradientFactor' | (typeof numbers)[number], Expression>;
    const gradient = isScaled ? float32(mul(given, gradientFactor)) : given;
    const base = rule.direction({ gradient, parameter: y, slots: expressions, scalars: expressions });
    const direction = add(base.direction, mul(decay, decayAt === 'y' ? y : fast));
    const x = averageOf(y, fast, betaBefore);
    const nextFast = sub(fast, mul(lr, direction));
    const nextX = add(x, mul(c, sub(nextFast, x)));
    return { ...base.slots, y: add(nextX, mul(sub(1, beta), sub(nextFast, nextX))), z: nextFast };
  });
}

/**
 * A base optimizer made schedule-free. The run's parameters are y; `evalParams` gives x, which is what is evaluated,
 * saved and exported. State: z and the buffers of the base.
 */
export function scheduleFree(rule: ElementwiseRule, pace: Pace, decayAt: 'y' | 'z'): Optimizer<State> {
  const [updated, updatedScaled] = [updateOf(rule, decayAt, false), updateOf(rule, decayAt, true)];
  return {
    takesGradientFactor: true,
    init(params) {
      rule.checkPaths?.(Object.keys(params));
      const zeros = () => mapParams(params, (value) => tf.zerosLike(value));
      const slots = Object.fromEntries(rule.slots.map((slot) => [slot, zeros()]));
      return { z: mapParams(params, (value) => value.clone()), slots, memory: pace.start };
    },
    update(args) {
      const { grads, params, state, step, gradientFactor } = args;
      const [update, factor] = gradientFactor ? [updatedScaled, { gradientFactor }] : [updated, {}];
      const { numbers, memory } = pace.next(args, state.memory);
      const scalars = { ...rule.scalars(step), ...numbers };
      const next = { y: {}, z: {}, slots: {} } as Record<'y' | 'z', Record<string, tf.Tensor>> & {
        slots: Record<string, Record<string, tf.Tensor>>;
      };
      for (const [path, y] of Object.entries(params)) {
        const slots = Object.fromEntries(rule.slots.map((slot) => [slot, at(state.slots[slot] ?? {}, path)]));
        const inputs = { y, z: at(state.z, path), gradient: at(grads, path), ...slots, ...factor };
        const results = update(inputs, { ...scalars, decay: rule.decay(path, y.shape) * numbers.decayFactor });
        next.y[path] = at(results, 'y');
        next.z[path] = at(results, 'z');
        for (const slot of rule.slots) (next.slots[slot] ??= {})[path] = at(results, slot);
      }
      return { params: next.y, state: { z: next.z, slots: next.slots, memory } };
    },
    evalParams: (params, { z: fast, memory }) =>
      mapParams(params, (y, path) => at(average({ y, z: at(fast, path) }, { beta: pace.beta(memory) }), 'x')),
  };
}
