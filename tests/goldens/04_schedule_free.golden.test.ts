import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../../packages/core/src/builtin.ts';
import { z } from '../../packages/core/src/index.ts';
import { Registry } from '../../packages/core/src/plugin/registry.ts';
import type { Optimizer, Params, Selected, StateTree } from '../../packages/core/src/plugin/types.ts';
import { at, tf } from '../../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../../packages/core/src/testing/backends.ts';
import schedulefree from '../../packages/plugin-schedulefree/src/index.ts';
import { GoldenFile } from './golden-file.ts';

const GROUP = '04_schedule_free';
const golden = GoldenFile.open(GROUP);

const caseSchema = z.strictObject({
  optimizer: z.enum(['adamw', 'sgd', 'radam']),
  lr: z.number().optional(),
  betas: z.tuple([z.number(), z.number()]).optional(),
  momentum: z.number().optional(),
  eps: z.number().optional(),
  weight_decay: z.number().optional(),
  warmup_steps: z.int().optional(),
  r: z.number().optional(),
  weight_lr_power: z.number().optional(),
  inner_momentum: z.number().optional(),
  silent_sgd_phase: z.boolean().optional(),
});

/** A case of the reference as a selection of ours; what it does not say stays at our defaults, which are the reference's. */
function selectionOf(given: unknown): Selected {
  const { optimizer, betas, ...rest } = caseSchema.parse(given);
  const options = {
    lr: rest.lr,
    beta1: betas?.[0],
    beta2: betas?.[1],
    momentum: rest.momentum,
    epsilon: rest.eps,
    weightDecay: rest.weight_decay,
    warmup: rest.warmup_steps,
    r: rest.r,
    weightLrPower: rest.weight_lr_power,
    innerMomentum: rest.inner_momentum,
    silentPhase: rest.silent_sgd_phase,
  };
  const said = Object.entries(options).filter(([, value]) => value !== undefined);
  return { name: `${optimizer}-schedulefree`, decay: 'all', ...Object.fromEntries(said) };
}

interface State {
  readonly z: Params;
  readonly slots: Readonly<Record<string, Params>>;
}

/** Names of ours for the buffers that the reference stores at the end. */
const BUFFERS = {
  z: (state: State) => state.z,
  exp_avg_sq: ({ slots }: State) => slots['v'],
  exp_avg: ({ slots }: State) => slots['m'],
};

function describeGroup(file: GoldenFile, backend: string): void {
  beforeAll(() => useBackend(backend));
  const names = file.names('common.init.');
  const evaluationSteps = JSON.parse(file.metadata['eval_steps'] ?? '[]') as number[];

  test.each(Object.entries(file.cases))(`${GROUP} %s: iterates, averages and buffers`, (name, given) => {
    const selected = selectionOf(given);
    const registry = new Registry([builtin, schedulefree]);
    const optimizer: Optimizer = registry.create('optimizer', selected, {});
    const { value } = registry.check('optimizer', selected) as unknown as { value: { lr: number } };
    let params: Params = Object.fromEntries(names.map((path) => [path, file.tensor(`common.init.${path}`)]));
    let state: StateTree = optimizer.init(params);
    const gradients = Object.fromEntries(names.map((path) => [path, tf.unstack(file.tensor(`common.grad.${path}`))]));
    const steps = gradients[names[0] ?? '']?.length ?? 0;
    expect(steps).toBeGreaterThan(0);
    const iterates: Record<string, number[]> = Object.fromEntries(names.map((path) => [path, []]));
    let compared = 0;
    for (let step = 1; step <= steps; step++) {
      const grads = Object.fromEntries(names.map((path) => [path, gradients[path]![step - 1]!]));
      ({ params, state } = optimizer.update({ grads, params, state, lr: value.lr, step, loss: tf.scalar(0) }));
      for (const path of names) iterates[path]!.push(...at(params, path).dataSync());
      if (!evaluationSteps.includes(step)) continue;
      const average = optimizer.evalParams!(params, state);
      for (const path of names) file.expect(at(average, path), `${name}.x${step}.${path}`);
      compared += 1;
    }
    expect(compared).toBe(evaluationSteps.length);
    for (const path of names) file.expect(iterates[path]!, `${name}.y.${path}`);
    for (const [buffer, read] of Object.entries(BUFFERS))
      for (const path of file.names(`${name}.${buffer}.`))
        file.expect(read(state as unknown as State)![path]!, `${name}.${buffer}.${path}`);
  });
}

if (golden === undefined) {
  test(`${GROUP}: reference vectors`, ({ skip }) => skip('LLMX_GOLDENS_DIR does not have this group'));
} else {
  test(`${GROUP}: has cases`, () => expect(Object.keys(golden.cases).length).toBeGreaterThan(0));
  describe.each(TEST_BACKENDS)(`${GROUP} on %s`, (backend) => {
    describeGroup(golden, backend);
  });
}
