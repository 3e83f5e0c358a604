import { builtin, Registry, tf } from '@llmx/core';
import { expectClose, TEST_BACKENDS, useBackend } from '@llmx/core/testing';
import { beforeAll, describe, test } from 'vitest';

import plugin from './index.ts';

interface Options {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly sfBeta: number;
  readonly sfBetaMax: number;
  readonly sfBetaAnnealSteps: number;
  readonly polyakBeta: number;
  readonly averageWarmup: number;
  readonly weightDecay: number;
  readonly r: number;
  readonly weightLrPower: number;
}

/** The method as its paper states it, with x, y and z apart, in float64. Gives y and x after every step. */
function explicit(start: number[], steps: { loss: number; gradient: number[] }[], o: Options) {
  const [x, y, z] = [[...start], [...start], [...start]];
  const [m, v] = [start.map(() => 0), start.map(() => 0)];
  let [norm, lrMax, weightSum] = [0, o.epsilon, 0];
  return steps.map(({ loss, gradient }, k) => {
    const progress = o.sfBetaAnnealSteps === 0 ? 0 : Math.min(k / o.sfBetaAnnealSteps, 1);
    const beta = 1 - Math.exp(Math.log(1 - o.sfBeta) * (1 - progress) + Math.log(1 - o.sfBetaMax) * progress);
    const inner = gradient.reduce((sum, g, i) => sum + beta * g * (z[i]! - x[i]!), 0);
    const l1 = gradient.reduce((sum, g) => sum + Math.abs(g), 0);
    norm = o.polyakBeta * norm + (1 - o.polyakBeta) * l1 * Math.sqrt(Math.PI / 2);
    const lr = (o.lr * Math.max(0, loss + inner)) / (norm / (1 - o.polyakBeta ** (k + 1)));
    lrMax = Math.max(lrMax, lr);
    let c = 1;
    if (k >= o.averageWarmup) {
      const weight = (k + 1) ** o.r * lrMax ** o.weightLrPower;
      weightSum += weight;
      c = weight / weightSum;
    }
    gradient.forEach((g, i) => {
      z[i]! -= lr * lr * o.weightDecay * y[i]!;
      m[i] = o.beta1 * m[i]! + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i]! + (1 - o.beta2) * g * g;
      z[i]! -= (lr * (m[i] / (1 - o.beta1 ** (k + 1)))) / (Math.sqrt(v[i] / (1 - o.beta2 ** (k + 1))) + o.epsilon);
      x[i] = (1 - c) * x[i]! + c * z[i]!;
      y[i] = beta * x[i] + (1 - beta) * z[i]!;
    });
    return { y: [...y], x: [...x] };
  });
}

const DEFAULTS: Options = {
  lr: 1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  sfBeta: 0.9,
  sfBetaMax: 0.965,
  sfBetaAnnealSteps: 0,
  polyakBeta: 0,
  averageWarmup: 0,
  weightDecay: 0,
  r: 0,
  weightLrPower: 2,
};

describe.each(TEST_BACKENDS)('ScheduleFree+ on %s', (backend) => {
  beforeAll(() => useBackend(backend));

  test.each<Partial<Options>>([
    {},
    { sfBetaAnnealSteps: 6, polyakBeta: 0.7 },
    { averageWarmup: 4, weightDecay: 0.2, r: 1, lr: 0.5 },
    { sfBeta: 0.5, weightLrPower: 1, beta1: 0 },
  ])('is the method with its three sequences written out (%o)', (given) => {
    const options = { ...DEFAULTS, ...given };
    const start = [0.5, -1.2, 0.3, 2];
    // Losses and gradients of some run: what they are does not matter here.
    const steps = Array.from({ length: 15 }, (_, k) => ({
      loss: 3 / (1 + 0.2 * k),
      gradient: start.map((_value, i) => Math.fround(Math.sin(1.7 * k + i) / (1 + 0.3 * i))),
    }));
    const expected = explicit(start, steps, options);
    const optimizer = new Registry([builtin, plugin]).create(
      'optimizer',
      { name: 'adamc-schedulefree-plus', decay: 'all', ...options },
      {},
    );
    let params: Record<string, tf.Tensor> = { a: tf.tensor1d(start.slice(0, 1)), b: tf.tensor1d(start.slice(1)) };
    let state = optimizer.init(params);
    steps.forEach(({ loss, gradient }, k) => {
      const grads = { a: tf.tensor1d(gradient.slice(0, 1)), b: tf.tensor1d(gradient.slice(1)) };
      const next = optimizer.update({ grads, params, state, lr: options.lr, step: k + 1, loss: tf.scalar(loss) });
      ({ state } = next);
      params = { ...next.params };
      const values = (of: Readonly<Record<string, tf.Tensor>>) => [...of['a']!.dataSync(), ...of['b']!.dataSync()];
      expectClose(values(params), expected[k]!.y, 2e-5, `y after step ${k + 1}`);
      expectClose(values(optimizer.evalParams!(params, state)), expected[k]!.x, 2e-5, `x after step ${k + 1}`);
    });
  });
});
