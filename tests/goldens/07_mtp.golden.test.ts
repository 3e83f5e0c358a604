import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../../packages/core/src/builtin.ts';
import { z } from '../../packages/core/src/index.ts';
import { Registry } from '../../packages/core/src/plugin/registry.ts';
import type { HostBatch, Model, Objective, Params } from '../../packages/core/src/plugin/types.ts';
import { differentiateParams, tf } from '../../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../../packages/core/src/testing/backends.ts';
import { EVALUATION, upload } from '../../packages/core/src/train/forward-context.ts';
import mtp from '../../packages/plugin-mtp/src/index.ts';
import { GoldenFile } from './golden-file.ts';
import { mtpNames } from './mtp-names.ts';

const GROUP = '07_mtp';
const golden = GoldenFile.open(GROUP);

const caseSchema = z.object({
  B: z.int(),
  T: z.int(),
  bias: z.boolean(),
  n_embd: z.int(),
  n_head: z.int(),
  n_heads_mtp: z.int(),
  tied: z.boolean(),
  tokens_per_row: z.int(),
  trunk_layers: z.int(),
  valid_positions_per_head: z.array(z.int()),
  vocab_size: z.int(),
});
type Case = z.output<typeof caseSchema>;

const registry = new Registry([builtin, mtp]);

const buildModel = ({ T, bias, n_embd, n_head, tied, trunk_layers, vocab_size }: Case): Model =>
  registry.create(
    'architecture',
    {
      name: 'decoder',
      dModel: n_embd,
      bias,
      tieEmbeddings: tied,
      blocks: [{ block: 'attention', repeat: trunk_layers + 1, heads: n_head, bias }],
    },
    { vocabSize: vocab_size, contextLength: T },
  );

const buildObjective = ({ T, bias, n_head, n_heads_mtp, vocab_size }: Case, normalize: string): Objective =>
  registry.create(
    'objective',
    {
      name: 'multi-token',
      tokens: n_heads_mtp,
      reads: 'trunk',
      head: { name: 'attention', heads: n_head, bias },
      normalize,
    },
    { vocabSize: vocab_size, contextLength: T },
  );

/** The first T ids of each row as inputs; what is ahead of a position counts as far as the row goes. */
function hostBatch(ids: ArrayLike<number>, { B, T, n_heads_mtp: lookahead, tokens_per_row }: Case): HostBatch {
  const id = (row: number, place: number) => (place < tokens_per_row ? ids[row * tokens_per_row + place]! : -1);
  const cells = Array.from({ length: B * T }, (_, index) => [Math.floor(index / T), index % T] as const);
  const views = Array.from({ length: lookahead }, (_, view) => view);
  return {
    batch: B,
    time: T,
    lookahead,
    tokens: Int32Array.from(cells, ([row, t]) => id(row, t)),
    labels: Int32Array.from(cells.flatMap(([row, t]) => views.map((view) => id(row, t + 1 + view)))),
  };
}

/** Loss as the framework puts it together, its terms' means, the metrics, and all gradients. */
function pass(given: Case, normalize: string, params: Params, host: HostBatch) {
  const [model, objective] = [buildModel(given), buildObjective(given, normalize)];
  const totals = objective.targets(host);
  const { value, grads } = differentiateParams(() => {
    const { terms, metrics } = objective.loss({
      model,
      params,
      batch: upload(host),
      context: EVALUATION,
      progress: { step: 1, totalSteps: 1, tokensPerStep: 1 },
    });
    const means = Object.entries(terms).map(([term, { sum, weight }]) => tf.mul(sum, weight / totals[term]!));
    return { result: tf.addN(means), means, metrics };
  }, params);
  return { ...value, totals, grads };
}

const scalars = (tensors: readonly tf.Tensor[]): number[] => tensors.map((tensor) => tensor.dataSync()[0]!);

function describeGroup(file: GoldenFile, backend: string): void {
  beforeAll(() => useBackend(backend));

  describe.each(Object.entries(file.cases))(`${GROUP} case %s`, (name, parameters) => {
    const given = caseSchema.parse(parameters);
    const names = mtpNames(file.names(`${name}.param.`), given.trunk_layers);
    const load = () => names.fromReference((path) => file.tensor(`${name}.param.${path}`));
    const host = hostBatch(file.values(`${name}.in.tokens`).data, given);
    const expectGradients = (grads: Params) => {
      const references = file.names(`${name}.grad.`);
      expect(references.length).toBe(file.names(`${name}.param.`).length);
      for (const path of references) file.expect(names.toReference(grads, path), `${name}.grad.${path}`);
    };

    test(`${GROUP} ${name}: losses and every gradient, each head by its own targets`, () => {
      const { result, means, totals, grads } = pass(given, 'heads', load(), host);
      expect(Object.values(totals)).toEqual(given.valid_positions_per_head);
      file.expect(scalars(means), `${name}.out.head_loss`);
      file.expect(result, `${name}.out.loss`);
      expectGradients(grads);
    });

    test(`${GROUP} ${name}: losses, all by the number of next tokens`, () => {
      const { result, metrics, totals, grads } = pass(given, 'tokens', load(), host);
      expect(totals).toEqual({ multiToken: given.valid_positions_per_head[0] });
      file.expect(result, `${name}.out.loss_if_divided_by_BT`);
      const sums = given.valid_positions_per_head.map((_, head) => metrics![`multiToken/loss/${head + 1}`]!);
      file.expect(scalars(sums), `${name}.out.head_nll_sum`);
      // Where every head has all targets, both divisors are one.
      if (new Set(given.valid_positions_per_head).size === 1) expectGradients(grads);
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
