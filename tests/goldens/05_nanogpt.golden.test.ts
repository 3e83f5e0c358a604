import { beforeAll, describe, expect, test } from 'vitest';

import { z } from '../../packages/core/src/index.ts';

import { builtin } from '../../packages/core/src/builtin.ts';
import { HookDriver } from '../../packages/core/src/plugin/hook-driver.ts';
import { Registry } from '../../packages/core/src/plugin/registry.ts';
import type { HostBatch, Model, Objective, Optimizer, Params } from '../../packages/core/src/plugin/types.ts';
import { differentiateParams, tf } from '../../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../../packages/core/src/testing/backends.ts';
import { EVALUATION, upload } from '../../packages/core/src/train/forward-context.ts';
import { trainStep, type TrainState } from '../../packages/core/src/train/step.ts';
import { BFLOAT16_ERROR, describeBfloat16, LEAST_ERROR, relativeError } from './bfloat16.ts';
import { GoldenFile } from './golden-file.ts';
import { nanogptNames } from './nanogpt-names.ts';

const GROUP = '05_nanogpt';
const golden = GoldenFile.open(GROUP);

const sizes = z.object({
  bias: z.boolean(),
  block_size: z.int(),
  n_embd: z.int(),
  n_head: z.int(),
  n_layer: z.int(),
  vocab_size: z.int(),
});
const recipe = z.object({
  betas: z.tuple([z.number(), z.number()]),
  eps: z.number(),
  grad_clip: z.number(),
  lr: z.number(),
  steps: z.int(),
  weight_decay: z.number(),
});

function build(given: unknown): { model: Model; objective: Objective } {
  const { bias, block_size, n_embd, n_head, n_layer, vocab_size } = sizes.parse(given);
  const registry = new Registry([builtin]);
  const context = { vocabSize: vocab_size, contextLength: block_size };
  const blocks = [{ block: 'attention', repeat: n_layer, heads: n_head, bias }];
  const model = registry.create('architecture', { name: 'decoder', dModel: n_embd, bias, blocks }, context);
  return { model, objective: registry.create('objective', { name: 'next-token' }, context) };
}

function buildOptimizer({ betas: [beta1, beta2], eps, weight_decay, lr }: z.output<typeof recipe>): Optimizer {
  const options = { lr, beta1, beta2, epsilon: eps, weightDecay: weight_decay };
  return new Registry([builtin]).create('optimizer', { name: 'adamw', ...options }, {});
}

/** Rows of time + 1 ids as inputs and the labels one ahead. */
function hostBatch(ids: ArrayLike<number>, batch: number, row: number): HostBatch {
  const rows = Array.from({ length: batch }, (_, index) => Array.from(ids).slice(index * row, (index + 1) * row));
  return {
    batch,
    time: row - 1,
    lookahead: 1,
    tokens: Int32Array.from(rows.flatMap((values) => values.slice(0, -1))),
    labels: Int32Array.from(rows.flatMap((values) => values.slice(1))),
  };
}

function loss({ model, objective }: ReturnType<typeof build>, params: Params, host: HostBatch): tf.Tensor {
  const { terms } = objective.loss({
    model,
    params,
    batch: upload(host),
    context: EVALUATION,
    progress: { step: 1, totalSteps: 1, tokensPerStep: 1 },
  });
  return tf.div(terms['nextToken']!.sum, host.labels.length);
}

/** Everything that the vectors of one group say, on one backend. */
function describeGroup(file: GoldenFile, backend: string): void {
  beforeAll(() => useBackend(backend));

  describe.each(Object.entries(file.cases))(`${GROUP} case %s`, (name, given) => {
    const names = nanogptNames(file.names(`${name}.param.`));
    const load = () => names.fromReference((path) => file.tensor(`${name}.param.${path}`));

    test(`${GROUP} ${name}: logits, loss and every gradient`, () => {
      const parts = build(given);
      const { shape, data } = file.values(`${name}.in.tokens`);
      const host = hostBatch(data, shape[0]!, shape[1]!);
      const params = load();
      file.expect(
        parts.model.logits(params, parts.model.hidden(params, upload(host), EVALUATION)),
        `${name}.out.logits`,
      );
      const { value, grads } = differentiateParams(() => ({ result: loss(parts, params, host) }), params);
      file.expect(value.result, `${name}.out.loss`);
      const references = file.names(`${name}.grad.`);
      expect(references.length).toBeGreaterThan(0);
      for (const path of references) file.expect(names.toReference(grads, path), `${name}.grad.${path}`);
    });

    // The optimizer's steps take seconds without kernels, and its parts are compared elsewhere.
    if (backend === 'composite') return;
    test(`${GROUP} ${name}: optimizer steps with clipping`, () => {
      const parts = build(given);
      const options = recipe.parse(JSON.parse(file.metadata['optimizer']!));
      const optimizer = buildOptimizer(options);
      const hooks = new HookDriver([]);
      const [steps, batch, row] = file.values(`${name}.in.train_tokens`).shape as [number, number, number];
      const { data } = file.values(`${name}.in.train_tokens`);
      const evaluation = file.values(`${name}.in.tokens`);
      const held = hostBatch(evaluation.data, evaluation.shape[0]!, evaluation.shape[1]!);
      const params = load();
      let state: TrainState = { params, frozen: {}, optimizer: optimizer.init(params) };
      const seen = { loss_before: [] as number[], grad_norm: [] as number[], eval_loss_after: [] as number[] };
      for (let step = 1; step <= Math.min(steps, options.steps); step++) {
        const ids = Array.from(data).slice((step - 1) * batch * row, step * batch * row);
        const length = { totalSteps: options.steps, tokensPerStep: batch * (row - 1) };
        const result = trainStep({ ...parts, optimizer, hooks, seed: 1, length, gradClip: options.grad_clip }, state, {
          info: { step, tokensSeen: step * batch * (row - 1) },
          lr: options.lr,
          micros: [hostBatch(ids, batch, row)],
        });
        state = result.state;
        seen.loss_before.push(result.scalars['loss']!.dataSync()[0]!);
        seen.grad_norm.push(result.scalars['gradNorm']!.dataSync()[0]!);
        seen.eval_loss_after.push(tf.tidy(() => loss(parts, state.params, held)).dataSync()[0]!);
      }
      for (const [what, values] of Object.entries(seen)) file.expect(values, `${name}.train.${what}`);
      const finals = file.names(`${name}.final.`);
      expect(finals.length).toBeGreaterThan(0);
      for (const path of finals) file.expect(names.toReference(state.params, path), `${name}.final.${path}`);
    });
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

describeBfloat16(GROUP, () => {
  test.runIf(golden !== undefined).for(Object.entries(golden?.cases ?? {}))(
    `${GROUP} %s: logits, loss and gradients within the error of rounding factors`,
    ([name, given]) => {
      const file = golden!;
      const names = nanogptNames(file.names(`${name}.param.`));
      const params = names.fromReference((path) => file.tensor(`${name}.param.${path}`));
      const { shape, data } = file.values(`${name}.in.tokens`);
      const host = hostBatch(data, shape[0]!, shape[1]!);
      const parts = build(given);
      const logits = parts.model.logits(params, parts.model.hidden(params, upload(host), EVALUATION));
      const error = (found: tf.Tensor, reference: string) =>
        relativeError(found.dataSync(), file.values(`${name}.${reference}`).data);
      expect(error(logits, 'out.logits')).toBeGreaterThan(LEAST_ERROR);
      expect(error(logits, 'out.logits')).toBeLessThan(BFLOAT16_ERROR);
      const { value, grads } = differentiateParams(() => ({ result: loss(parts, params, host) }), params);
      expect(error(value.result, 'out.loss')).toBeLessThan(BFLOAT16_ERROR);
      for (const path of file.names(`${name}.grad.`))
        expect(error(names.toReference(grads, path), `grad.${path}`), path).toBeLessThan(BFLOAT16_ERROR);
    },
  );
});
