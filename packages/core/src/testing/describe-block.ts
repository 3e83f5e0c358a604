import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import type { Block, ForwardContext, Params, Selected, StateTree } from '../plugin/types.ts';
import { differentiateParams, keyedRng, stateTensors, tf } from '../tensor/index.ts';
import { useBackend } from './backends.ts';
import { expectGradients } from './gradients.ts';
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
  variants,
} from './subject.ts';

const [BATCH, TIME, D_MODEL] = [2, 9, 16];

const shapes = (state: StateTree): number[][] => stateTensors(state).map(({ shape }) => [...shape]);

/** Lengths of the documents in a window that has several. */
const DOCUMENTS = [4, TIME - 4] as const;

/** int32 [BATCH, TIME] by document and place in it. */
const perPosition = (value: (document: number, place: number) => number): tf.Tensor => {
  const window = DOCUMENTS.flatMap((length, document) => Array.from({ length }, (_, place) => value(document, place)));
  return tf.tensor2d(
    Array.from({ length: BATCH }, () => window),
    [BATCH, TIME],
    'int32',
  );
};

const packed = (): ForwardContext => ({
  ...evaluation,
  segments: perPosition((document) => document),
  positions: perPosition((_, place) => place),
});

/**
 * The contract of a block: shapes, causality, independence of rows and documents, gradients of both, decoding that equals
 * training, states that can be used again and rewound, no leaks, initial values that depend on the seed alone.
 */
export function describeBlock(subject: Subject & { readonly dModel?: number }): void {
  const dModel = subject.dModel ?? D_MODEL;
  const registry = registryOf(subject);
  const build = (selected: Selected): Block =>
    registry.create('block', selected, { vocabSize: 50, contextLength: TIME, dModel, index: 0, depth: 2 });

  describe.each(backendsOf(subject))('block contract on %s', (backend) => {
    beforeAll(() => useBackend(backend));
    beforeEach(() => tf.engine().startScope());
    afterEach(() => tf.engine().endScope());

    describe.each(variants(subject))('%s', (_title, selected) => {
      const block = build(selected);
      // Larger than at initialisation, so that every path through the block shows in its output.
      const params = (): Params =>
        Object.fromEntries(
          Object.entries(block.init(keyedRng(1, 'init'))).map(([path, value]) => [
            path,
            tf.add(value, testRng.normal(path, value.shape, 0.3)),
          ]),
        );
      const input = (name = 'x') => testRng.normal(name, [BATCH, TIME, dModel], 1);

      test('keeps the shape and is finite', () => {
        const y = block.forward(params(), input(), evaluation);
        expect(y.shape).toEqual([BATCH, TIME, dModel]);
        expectFinite(y, 'The output');
      });

      test('a position sees itself and earlier ones only', () => {
        const [p, x] = [params(), input()];
        const y = block.forward(p, x, evaluation);
        const z = block.forward(p, changedAfter(x, 4, input('other')), evaluation);
        expectAgree(positions(z, 0, 4), positions(y, 0, 4), 'Positions before the change');
        expect(tf.max(tf.abs(tf.sub(positions(z, 4, 1), positions(y, 4, 1)))).dataSync()[0]).toBeGreaterThan(1e-3);
      });

      test('rows of a batch are independent', () => {
        const [p, x] = [params(), input()];
        const y = block.forward(p, x, evaluation);
        for (let index = 0; index < BATCH; index++)
          expectAgree(block.forward(p, row(x, index), evaluation), row(y, index), `Row ${index} alone`);
      });

      test('documents of a window are independent', () => {
        const [p, x] = [params(), input()];
        const [first, second] = DOCUMENTS;
        const y = block.forward(p, x, packed());
        expectAgree(positions(y, 0, first), block.forward(p, positions(x, 0, first), evaluation), 'First document');
        expectAgree(
          positions(y, first, second),
          block.forward(p, positions(x, first, second), evaluation),
          'Second document',
        );
      });

      test('gradients agree with differences and reach every parameter', () => {
        const p = params();
        const paths = Object.keys(p);
        const f = ([x, ...values]: tf.Tensor[]) =>
          block.forward(Object.fromEntries(paths.map((path, index) => [path, values[index]!])), x!, evaluation);
        expectGradients(f, [input(), ...Object.values(p)], { step: 5e-3, tolerance: 2e-2, samples: 3 });
        const { grads } = differentiateParams(
          () => ({ result: tf.sum(tf.square(block.forward(p, input(), evaluation))) }),
          p,
        );
        for (const [path, gradient] of Object.entries(grads)) expectFinite(gradient, `The gradient of "${path}"`);
      });

      test('gradients of documents in one window are those they have alone', () => {
        const [x, weight] = [input(), input('weight')];
        const all = { ...params(), x };
        const gradients = (start: number, length: number, context: ForwardContext): Params =>
          differentiateParams(() => {
            const y = block.forward(all, positions(x, start, length), context);
            return { result: tf.sum(tf.mul(y, positions(weight, start, length))) };
          }, all).grads;
        const [first, second] = DOCUMENTS;
        const [one, other] = [gradients(0, first, evaluation), gradients(first, second, evaluation)];
        for (const [path, gradient] of Object.entries(gradients(0, TIME, packed())))
          expectAgree(gradient, tf.add(one[path]!, other[path]!), `The gradient of "${path}"`, 1e-4);
      });

      test('decoding gives the outputs of the parallel form, one position or several at a time', () => {
        const [p, x] = [params(), input()];
        const y = block.forward(p, x, evaluation);
        for (const sizes of [Array.from({ length: TIME }, () => 1), [5, 1, 3], [TIME]]) {
          let state = block.initialState(BATCH);
          let position = 0;
          for (const size of sizes) {
            const result = block.step(p, positions(x, position, size), state, { position });
            expectAgree(
              result.x,
              positions(y, position, size),
              `Positions ${position} to ${position + size - 1}`,
              1e-4,
            );
            state = result.state;
            position += size;
          }
        }
      });

      test('an earlier state can be used again', () => {
        const [p, x] = [params(), input()];
        const before = block.step(p, positions(x, 0, 4), block.initialState(BATCH), { position: 0 }).state;
        const once = block.step(p, positions(x, 4, 3), before, { position: 4 }).x;
        block.step(p, positions(input('other'), 4, 5), before, { position: 4 });
        const again = block.step(p, positions(x, 4, 3), before, { position: 4 }).x;
        expectSameBits({ x: again }, { x: once }, 'The same step from the same state');
      });

      test('a rewound state is the one that fewer positions give', ({ skip }) => {
        if (block.rewind === undefined) return skip('the block does not rewind');
        const [p, x] = [params(), input()];
        const rewind = block.rewind.bind(block);
        const before = block.step(p, positions(x, 0, 4), block.initialState(BATCH), { position: 0 }).state;
        const reference = block.forward(p, x, evaluation);
        for (const count of [1, 2, 3]) {
          // Other inputs where the state is taken back.
          const other = changedAfter(x, 8 - count, input('other'));
          const after = block.step(p, positions(other, 4, 4), before, { position: 4, rewindable: true });
          expectAgree(positions(after.x, 0, 4 - count), positions(reference, 4, 4 - count), 'A rewindable step', 1e-4);
          const state = rewind(p, after.state, count);
          const rest = positions(x, 8 - count, count + 1);
          const y = block.step(p, rest, state, { position: 8 - count, rewindable: true });
          const expected = positions(reference, 8 - count, count + 1);
          expectAgree(y.x, expected, `From ${count} positions earlier`, 1e-4);
          // What is kept for rewinding does not pile up.
          const again = block.step(p, positions(x, 8, 1), rewind(p, y.state, 1), { position: 8 });
          expectAgree(again.x, positions(reference, 8, 1), 'From one position earlier again', 1e-4);
          const plain = block.step(p, rest, state, { position: 8 - count }).state;
          expect(shapes(again.state)).toEqual(shapes(plain));
        }
      });

      test('leaves no tensors behind', () => {
        const [p, x] = [params(), input()];
        expectNoLeak(() => tf.tidy(() => block.forward(p, x, evaluation)));
        expectNoLeak(() =>
          tf.tidy(
            () =>
              differentiateParams(() => ({ result: tf.sum(block.forward(p, x, evaluation)) }), p)
                .grads as tf.TensorContainer,
          ),
        );
      });

      test('the same seed gives the same initial values, another seed others', () => {
        const once = block.init(keyedRng(5, 'init'));
        expectSameBits(build(selected).init(keyedRng(5, 'init')), once, 'Initial values');
        expect(() => expectSameBits(block.init(keyedRng(6, 'init')), once, 'Initial values')).toThrow('other bits');
      });
    });
  });
}
