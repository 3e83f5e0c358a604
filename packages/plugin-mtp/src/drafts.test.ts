import {
  builtin,
  defineBlock,
  definePlugin,
  keyedRng,
  type Params,
  prefixed,
  Registry,
  stateTensors,
  tf,
  z,
} from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import plugin from './index.ts';

beforeAll(() => useBackend('cpu'));
beforeEach(() => {
  tf.engine().startScope();
  return () => tf.engine().endScope();
});

/** The attention block, as one that cannot take positions back. */
const onward = defineBlock({
  name: 'onward',
  summary: 'Attention without rewind.',
  config: z.strictObject({}),
  build(_options, context) {
    const block = new Registry([builtin]).create('block', head, context);
    return {
      init: block.init.bind(block),
      forward: block.forward.bind(block),
      initialState: block.initialState.bind(block),
      step: block.step.bind(block),
    };
  },
});
const head = { name: 'attention', heads: 2, initStd: 0.3 };
const registry = new Registry([
  builtin,
  plugin,
  definePlugin({ name: 'test-onward', version: '1.0.0', llmx: '*', components: [onward] }),
]);
const [TIME, VOCAB] = [10, 13];
const sizes = { vocabSize: VOCAB, contextLength: TIME };
const TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];
const noise = keyedRng(9, 'noise');

function setUp(name: string, options: object) {
  const blocks = [{ block: 'attention', repeat: 2, heads: 2, initStd: 0.3 }];
  const model = registry.create('architecture', { name: 'decoder', dModel: 8, initStd: 0.3, blocks }, sizes);
  const selected = { name, ...options };
  const objective = registry.create('objective', selected, sizes);
  const draft = registry.create('draft', selected, { ...sizes, model });
  const rng = keyedRng(1, 'init');
  const own = prefixed('objective', objective.init!(rng.scope('objective'), model));
  // Linear heads start as zeros.
  const moved = Object.entries(own).map(([path, x]) => [path, tf.add(x, noise.normal(path, x.shape, 0.1))] as const);
  const params: Params = { ...model.init(rng), ...Object.fromEntries(moved) };
  return { model, objective, draft, params };
}
type Setting = ReturnType<typeof setUp>;

/** What the objective charges a head for `label` at a position, nats. */
function trained({ model, objective, params }: Setting, position: number, view: number, label: number): number {
  const { lookahead } = objective;
  const labels = new Int32Array(TIME * lookahead).fill(-1);
  labels[position * lookahead + view] = label;
  const batch = {
    tokens: tf.tensor2d([TEXT], undefined, 'int32'),
    labels: tf.tensor3d(labels, [1, TIME, lookahead], 'int32'),
  };
  const { metrics } = objective.loss({
    model,
    params,
    batch,
    context: { training: false, dropout: (x) => x },
    progress: { step: 1, totalSteps: 1, tokensPerStep: TIME },
  });
  return metrics![`multiToken/loss/${view + 1}`]!.dataSync()[0]!;
}

/** Steps model and draft over the text in pieces; what the draft last gave logits of, nats per label. */
async function drafted({ model, draft, params }: Setting, pieces: readonly number[], count: number) {
  let [state, draftState] = [model.initialState(1), draft.initialState()];
  let position = 0;
  let charges: number[][] = [];
  for (const [index, piece] of pieces.entries()) {
    const ids = TEXT.slice(position, position + piece);
    const { hidden, trunk, state: after } = model.step(params, tf.tensor2d([ids], undefined, 'int32'), state);
    position += piece;
    // Proposals before the last piece are wrong, and must leave no trace.
    const isLast = index === pieces.length - 1;
    charges = [];
    const input = {
      params,
      state: draftState,
      hidden,
      trunk: trunk!,
      tokens: TEXT.slice(position - piece, position + 1),
    };
    draftState = await draft.propose({
      ...input,
      count,
      draw: async (logits) => {
        const rows = (tf.neg(tf.logSoftmax(logits)).arraySync() as number[][][])[0]!;
        charges.push(...rows);
        return rows.map((_, row) => (isLast ? TEXT[position + charges.length - rows.length + row + 1]! : 7));
      },
    });
    state = after;
  }
  expect(charges).toHaveLength(count);
  return { charges, last: position - 1 };
}

describe.each([
  ['multi-token', { tokens: 4, head }],
  ['multi-token', { tokens: 3, head, reads: 'hidden' }],
  ['multi-token', { tokens: 3, head: 'linear' }],
  ['multi-token-sequential', { tokens: 2, block: head }],
  ['multi-token-sequential', { tokens: 4, block: head }],
  ['multi-token-sequential', { tokens: 4, block: 'onward' }],
])('the draft %s (%o)', (name, options) => {
  test.each([[[3]], [[1, 1]], [[3, 1, 2]], [[1, 1, 1, 3]]])(
    'gives the logits that the objective trained, after pieces of %j',
    async (pieces) => {
      const setting = setUp(name, options);
      const { charges, last } = await drafted(setting, pieces, setting.draft.length);
      for (const [index, row] of charges.entries())
        for (const label of [0, 6]) expect(row[label]).toBeCloseTo(trained(setting, last, index + 1, label), 4);
    },
  );

  test('gives those of its first heads where fewer are asked for', async () => {
    const setting = setUp(name, options);
    const all = await drafted(setting, [2, 2], setting.draft.length);
    const first = await drafted(setting, [2, 2], 1);
    for (const [label, charge] of first.charges[0]!.entries()) expect(charge).toBeCloseTo(all.charges[0]![label]!, 5);
  });

  test('leaves no tensors behind', async () => {
    const { model, draft, params } = setUp(name, options);
    const ids = tf.tensor2d([TEXT.slice(0, 4)], undefined, 'int32');
    const { hidden, trunk } = model.step(params, ids, model.initialState(1));
    const once = async (): Promise<void> => {
      const state = draft.initialState();
      const input = { params, state, hidden, trunk: trunk!, tokens: TEXT.slice(0, 5), count: draft.length };
      const next = await draft.propose({
        ...input,
        draw: async (logits) => Array.from({ length: logits.shape[1]! }, () => 1),
      });
      tf.dispose([stateTensors(state), stateTensors(next)]);
    };
    await once();
    const before = tf.memory().numTensors;
    await once();
    expect(tf.memory().numTensors).toBe(before);
  });
});
