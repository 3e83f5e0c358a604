import { at, tf } from '@llmx/core';

import type { Memory, Pace, UpdateArguments } from './schedule-free.ts';

interface AveragingOptions {
  readonly r: number;
  readonly weightLrPower: number;
}

/** The weight of a step in the average, and what the averaging remembers: the weights' sum and the largest rate. */
function weigh(memory: Memory, { lr, step }: { lr: number; step: number }, { r, weightLrPower }: AveragingOptions) {
  const lrMax = Math.max(memory['lrMax'] ?? 0, lr);
  const weight = step ** r * lrMax ** weightLrPower;
  const weightSum = (memory['weightSum'] ?? 0) + weight;
  return { c: weightSum === 0 ? 0 : weight / weightSum, lrMax, weightSum };
}

/**
 * A constant interpolation and the learning rate of the run, after linear warm-up.
 *
 * @param lrFactor factor of the learning rate at a step, for methods that have one of their own
 */
export function steady(
  options: AveragingOptions & { readonly beta: number; readonly warmup: number },
  lrFactor: (step: number) => number = () => 1,
): Pace {
  const { beta, warmup } = options;
  return {
    start: { lrMax: 0, weightSum: 0 },
    next({ lr: scheduled, step }, memory) {
      const lr = scheduled * (warmup === 0 ? 1 : Math.min(1, step / warmup)) * lrFactor(step);
      const { c, lrMax, weightSum } = weigh(memory, { lr, step }, options);
      return { numbers: { lr, betaBefore: beta, beta, c, decayFactor: 1 }, memory: { lrMax, weightSum } };
    },
    beta: () => beta,
  };
}

interface PolyakOptions extends AveragingOptions {
  readonly sfBeta: number;
  readonly sfBetaMax: number;
  readonly sfBetaAnnealSteps: number;
  readonly polyakBeta: number;
  readonly averageWarmup: number;
  readonly epsilon: number;
}

/** Interpolation at a step: 1 - beta goes from 1 - sfBeta to 1 - sfBetaMax, evenly in the logarithm. */
function annealedBeta({ sfBeta, sfBetaMax, sfBetaAnnealSteps }: PolyakOptions, step: number): number {
  if (sfBetaAnnealSteps === 0) return sfBeta;
  const progress = Math.min(1, (step - 1) / sfBetaAnnealSteps);
  return 1 - (1 - sfBeta) ** (1 - progress) * (1 - sfBetaMax) ** progress;
}

/** Sum of absolute gradients, and of gradients times z - y; read back from the device with the loss. */
function read({ grads, params, state, loss, gradientFactor }: UpdateArguments): {
  loss: number;
  norm: number;
  drift: number;
} {
  const values = tf.tidy(() => {
    const scaled = (gradient: tf.Tensor) => (gradientFactor ? tf.mul(gradient, gradientFactor) : gradient);
    const total = (f: (gradient: tf.Tensor, path: string) => tf.Tensor) =>
      tf.addN(Object.entries(grads).map(([path, gradient]) => tf.sum(f(scaled(gradient), path))));
    const norm = total((gradient) => tf.abs(gradient));
    const drift = total((gradient, path) => tf.mul(gradient, tf.sub(at(state.z, path), at(params, path))));
    return tf.stack([tf.reshape(loss, []), norm, drift]);
  });
  const [value, norm, drift] = values.dataSync() as Float32Array;
  values.dispose();
  return { loss: value!, norm: norm!, drift: drift! };
}

/**
 * Polyak's step size from the loss itself, with an annealed interpolation (Defazio, arXiv 2605.19095):
 *
 *     rate = max(0, loss + beta <g, z - x>) / (EMA of |g|_1 sqrt(pi / 2))
 *
 * The square root turns a sum of absolute values into the length of a Gaussian vector. It needs the loss on the host, so
 * every step waits for the device. Weight decay is scaled by the learning rate once more (AdamC, arXiv 2506.02285).
 */
export function polyak(options: PolyakOptions): Pace {
  const { polyakBeta, averageWarmup, epsilon, sfBeta } = options;
  return {
    start: { lrMax: epsilon, weightSum: 0, norm: 0, beta: sfBeta },
    next(args, memory) {
      const { step } = args;
      const { loss, norm: current, drift } = read(args);
      const beta = annealedBeta(options, step);
      const betaBefore = memory['beta'] ?? sfBeta;
      const norm = polyakBeta * (memory['norm'] ?? 0) + (1 - polyakBeta) * current * Math.sqrt(Math.PI / 2);
      const corrected = norm / (1 - polyakBeta ** step);
      // z - x = (z - y) / betaBefore.
      const rate = Math.max(0, loss + (beta * drift) / betaBefore) / corrected;
      const lr = args.lr * rate;
      const isWarm = step > averageWarmup;
      const { c, lrMax, weightSum } = weigh(memory, { lr, step }, options);
      return {
        numbers: { lr, betaBefore, beta, c: isWarm ? c : 1, decayFactor: lr },
        memory: { lrMax, weightSum: isWarm ? weightSum : (memory['weightSum'] ?? 0), norm, beta },
      };
    },
    beta: (memory) => memory['beta'] ?? sfBeta,
  };
}
