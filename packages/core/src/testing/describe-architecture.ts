import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { crossEntropy } from '../objective/next-token.ts';
import type { Model, Params, Selected, StateTree } from '../plugin/types.ts';
import { differentiateParams, keyedRng, tf } from '../tensor/index.ts';
import { useBackend } from './backends.ts';
import {
  backendsOf,
  changedAfter,
  evaluation,
  expectAgree,
  expectFinite,
  expectNoLeak,
  expectSameBits,
  positions,
  registryOf,
  row,
  type Subject,
  testRng,
  testTokens,
  variants,
} from './subject.ts';

const [BATCH, TIME, VOCAB] = [2, 8, 23];

/**
 * The contract of an architecture: shapes, causality, independence of rows and documents, gradients for every
 * parameter, the loss of its logits, decoding that equals training, no leaks, initial values that depend on the seed.
 */
export function describeArchitecture(subject: Subject): void {
  const registry = registryOf(subject);
  const build = (selected: Selected): Model =>
    registry.create('architecture', selected, { vocabSize: VOCAB, contextLength: TIME });

  describe.each(backendsOf(subject))('architecture contract on %s', (backend) => {
    beforeAll(() => useBackend(backend));
    beforeEach(() => tf.engine().startScope());
    afterEach(() => tf.engine().endScope());

    describe.each(variants(subject))('%s', (_title, selected) => {
      const model = build(selected);
      const params = (): Params =>
        Object.fromEntries(
          Object.entries(model.init(keyedRng(1, 'init'))).map(([path, value]) => [
            path,
            tf.add(value, testRng.normal(path, value.shape, 0.2)),
          ]),
        );
      const logits = (p: Params, tokens: tf.Tensor, rest: object = {}) =>
        model.logits(p, model.hidden(p, { tokens, ...rest }, evaluation));

      test('hidden states and logits have their shapes and are finite', () => {
        const p = params();
        const hidden = model.hidden(p, { tokens: testTokens(BATCH, TIME, VOCAB) }, evaluation);
        expect(hidden.shape).toEqual([BATCH, TIME, model.dModel]);
        expect(model.logits(p, hidden).shape).toEqual([BATCH, TIME, model.vocabSize]);
        expectFinite(model.logits(p, hidden), 'The logits');
      });

      test('a position sees itself and earlier ones only', () => {
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const other = tf.cast(tf.mod(tf.add(tokens, 1), VOCAB), 'int32');
        const [y, z] = [logits(p, tokens), logits(p, changedAfter(tokens, 5, other))];
        expectAgree(positions(z, 0, 5), positions(y, 0, 5), 'Positions before the change');
        expect(tf.max(tf.abs(tf.sub(positions(z, 5, 1), positions(y, 5, 1)))).dataSync()[0]).toBeGreaterThan(1e-3);
      });

      test('rows and documents are independent', () => {
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const y = logits(p, tokens);
        for (let index = 0; index < BATCH; index++)
          expectAgree(logits(p, row(tokens, index)), row(y, index), `Row ${index} alone`);
        const matrix = (values: number[]) =>
          tf.tensor2d(
            Array.from({ length: BATCH }, () => values),
            [BATCH, TIME],
            'int32',
          );
        const segments = matrix([0, 0, 0, 1, 1, 1, 1, 1]);
        const packed = logits(p, tokens, { segments, positions: matrix([0, 1, 2, 0, 1, 2, 3, 4]) });
        expectAgree(positions(packed, 0, 3), logits(p, positions(tokens, 0, 3)), 'First document');
        expectAgree(positions(packed, 3, 5), logits(p, positions(tokens, 3, 5)), 'Second document');
      });

      test('its cross-entropy is that of its logits', () => {
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const labels = tf.sub(testTokens(BATCH, TIME, VOCAB), tf.scalar(1, 'int32')); // some are -1
        const hidden = model.hidden(p, { tokens }, evaluation);
        const { dModel, vocabSize, logits: head } = model;
        const plain = { dModel, vocabSize, logits: head.bind(model) } as unknown as Model;
        expectAgree(crossEntropy(model, p, hidden, labels), crossEntropy(plain, p, hidden, labels), 'Cross-entropy');
      });

      test('every parameter has a finite gradient', () => {
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const { grads } = differentiateParams(() => {
          const hidden = model.hidden(p, { tokens }, evaluation);
          return { result: tf.mean(crossEntropy(model, p, hidden, tokens)) };
        }, p);
        for (const [path, gradient] of Object.entries(grads)) expectFinite(gradient, `The gradient of "${path}"`);
      });

      test('decoding gives the logits of the parallel form', () => {
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const y = logits(p, tokens);
        let state: StateTree = model.initialState(BATCH);
        let position = 0;
        for (const size of [4, 1, 1, 2]) {
          const result = model.step(p, positions(tokens, position, size), state);
          expectAgree(model.logits(p, result.hidden), positions(y, position, size), `From position ${position}`, 1e-4);
          state = result.state;
          position += size;
        }
      });

      test('a rewound state goes on as if the tokens had not been there', ({ skip }) => {
        if (model.rewind === undefined) return skip('the model does not rewind');
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const y = logits(p, tokens);
        const before = model.step(p, positions(tokens, 0, 3), model.initialState(BATCH)).state;
        const other = tf.cast(tf.mod(tf.add(positions(tokens, 3, 4), tf.tensor([0, 0, 1, 1], [1, 4])), VOCAB), 'int32');
        const after = model.step(p, other, before, { rewindable: true });
        expectAgree(model.logits(p, positions(after.hidden, 0, 2)), positions(y, 3, 2), 'Before the change', 1e-4);
        const result = model.step(p, positions(tokens, 5, 3), model.rewind(p, after.state, 2));
        expectAgree(model.logits(p, result.hidden), positions(y, 5, 3), 'After it', 1e-4);
      });

      test('the trunk is shown beside the hidden states, in decoding too', ({ skip }) => {
        if (model.fork === undefined) return skip('the model does not show its trunk');
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const { trunk, hidden } = model.fork(p, { tokens }, evaluation);
        expectAgree(hidden, model.hidden(p, { tokens }, evaluation), 'Hidden states');
        expect(model.lastNorm!(p, trunk).shape).toEqual([BATCH, TIME, model.dModel]);
        const result = model.step(p, tokens, model.initialState(BATCH));
        expectAgree(result.trunk!, trunk, 'The trunk', 1e-4);
      });

      test('leaves no tensors behind', () => {
        const [p, tokens] = [params(), testTokens(BATCH, TIME, VOCAB)];
        const loss = () => tf.sum(crossEntropy(model, p, model.hidden(p, { tokens }, evaluation), tokens));
        expectNoLeak(() =>
          tf.tidy(() => differentiateParams(() => ({ result: loss() }), p).grads as tf.TensorContainer),
        );
      });

      test('the same seed gives the same initial values, another seed others', () => {
        const once = model.init(keyedRng(5, 'init'));
        expectSameBits(build(selected).init(keyedRng(5, 'init')), once, 'Initial values');
        expect(() => expectSameBits(model.init(keyedRng(6, 'init')), once, 'Initial values')).toThrow('other bits');
      });
    });
  });
}
