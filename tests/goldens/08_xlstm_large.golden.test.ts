import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../../packages/core/src/builtin.ts';
import { expr, fuse, z } from '../../packages/core/src/index.ts';
import { Registry } from '../../packages/core/src/plugin/registry.ts';
import type { Model, Params, StateTree } from '../../packages/core/src/plugin/types.ts';
import { at, differentiateParams, keyedRng, tf } from '../../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../../packages/core/src/testing/backends.ts';
import { expectClose } from '../../packages/core/src/testing/close.ts';
import { EVALUATION } from '../../packages/core/src/train/forward-context.ts';
import xlstm, { fromOfficial, toOfficial } from '../../packages/plugin-xlstm/src/index.ts';
import { loadNativeKernels } from '../../packages/plugin-xlstm/src/native-kernels.ts';
import { GoldenFile } from './golden-file.ts';

const GROUP = '08_xlstm_large';
const golden = GoldenFile.open(GROUP);
const registry = new Registry([builtin, xlstm]);
const caseSchema = z.object({ vocab: z.int(), emb: z.int(), blocks: z.int(), heads: z.int() });

/** The reference caps its logits; the decoder does not, so the comparison does. */
const capped = fuse((logits) => expr.mul(30, expr.tanh(expr.div(logits, 30))));

function buildModel(given: unknown, chunk: number): Model {
  const { vocab, emb, blocks, heads } = caseSchema.parse(given);
  const options = {
    dModel: emb,
    blocks: [{ block: 'mlstm-large', repeat: blocks, heads, chunk }],
    norm: 'rmsnorm',
    normEpsilon: 1e-6,
    positions: 'none',
    bias: false,
    tieEmbeddings: false,
  };
  return registry.create('architecture', { name: 'decoder', ...options }, { vocabSize: vocab, contextLength: 20 });
}

/** Mean cross-entropy of logits float32 [batch, time, vocab] and labels int32 [batch, time]. */
function meanLoss(logits: tf.Tensor, labels: tf.Tensor): tf.Tensor {
  const target = tf.mul(logits, tf.oneHot(labels as tf.Tensor2D, logits.shape[2]!));
  return tf.mean(tf.sub(tf.logSumExp(logits, 2), tf.sum(target, 2)));
}

interface DecoderState {
  readonly blocks: Readonly<Record<string, Params>>;
}

function describeCase(file: GoldenFile, name: string, given: unknown): void {
  const { emb, heads, blocks: depth } = caseSchema.parse(given);
  const parameters = (): Params =>
    Object.fromEntries(file.names(`${name}.param.`).map((path) => [path, file.tensor(`${name}.param.${path}`)]));

  test.each([64, 3])(`${GROUP} ${name}: logits, loss and every gradient, in chunks of %i`, (chunk) => {
    tf.tidy(() => {
      const model = buildModel(given, chunk);
      const params = fromOfficial(parameters());
      const ids = file.tensor(`${name}.in.tokens`);
      const time = ids.shape[1]! - 1;
      const [tokens, labels] = [tf.slice(ids, [0, 0], [-1, time]), tf.slice(ids, [0, 1], [-1, time])];
      const { value, grads } = differentiateParams(() => {
        const logits = capped(model.logits(params, model.hidden(params, { tokens }, EVALUATION)));
        return { result: meanLoss(logits, labels), logits };
      }, params);
      file.expect(value.logits, `${name}.out.logits`);
      file.expect(value.result, `${name}.out.loss`);
      const theirs = toOfficial(grads, { of: 'gradients' });
      const stored = file.names(`${name}.grad.`);
      expect(stored.toSorted()).toEqual(Object.keys(theirs).toSorted());
      for (const path of stored) file.expect(theirs[path]!, `${name}.grad.${path}`);
    });
  });

  test(`${GROUP} ${name}: logits and states token by token`, () => {
    tf.tidy(() => {
      const model = buildModel(given, 64);
      const params = fromOfficial(parameters());
      const [batch, row] = file.values(`${name}.in.tokens`).shape as [number, number];
      let state: StateTree = model.initialState(batch);
      const hidden = tf
        .split(file.tensor(`${name}.in.tokens`), row, 1)
        .slice(0, -1)
        .map((tokens) => {
          const result = model.step(params, tokens, state);
          state = result.state;
          return result.hidden;
        });
      file.expect(capped(model.logits(params, tf.concat(hidden, 1))), `${name}.step.logits`);
      // The reference scales queries where we scale keys, so its states are larger.
      const factor = Math.sqrt(emb / 2 / heads);
      const ofBlocks = Object.entries((state as unknown as DecoderState).blocks);
      expect(ofBlocks).toHaveLength(depth);
      for (const [index, block] of ofBlocks) {
        file.expect(tf.mul(at(block, 'memory'), factor), `${name}.state.block_${index}.C`);
        file.expect(tf.mul(at(block, 'normalizer'), factor), `${name}.state.block_${index}.n`);
        file.expect(at(block, 'maximum'), `${name}.state.block_${index}.m`);
      }
    });
  });

  test(`${GROUP} ${name}: parameters have the shapes of ours, and survive the way here and back`, () => {
    tf.tidy(() => {
      const theirs = parameters();
      const shapes = (params: Params) => Object.fromEntries(Object.entries(params).map(([path, x]) => [path, x.shape]));
      expect(shapes(fromOfficial(theirs))).toEqual(shapes(buildModel(given, 64).init(keyedRng(1, 'init'))));
      const back = toOfficial(fromOfficial(theirs));
      expect(Object.keys(back).toSorted()).toEqual(Object.keys(theirs).toSorted());
      for (const [path, tensor] of Object.entries(theirs)) expectClose(back[path]!, tensor, 0, path);
    });
  });
}

if (golden === undefined) {
  test(`${GROUP}: reference vectors`, ({ skip }) => skip('LLMX_GOLDENS_DIR does not have this group'));
} else {
  test(`${GROUP}: has cases`, () => expect(Object.keys(golden.cases)).toEqual(['two', 'capped']));
  describe.each(TEST_BACKENDS)(`${GROUP} on %s`, (backend) => {
    beforeAll(async () => {
      await useBackend(backend);
      await loadNativeKernels();
    });
    for (const [name, given] of Object.entries(golden.cases)) describeCase(golden, name, given);
  });
}
