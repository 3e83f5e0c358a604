import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import type { HostBatch, Objective, Params, Selected } from '../plugin/types.ts';
import { differentiateParams, keyedRng, mapParams, prefixed, tf } from '../tensor/index.ts';
import { upload } from '../train/forward-context.ts';
import { useBackend } from './backends.ts';
import {
  backendsOf,
  evaluation,
  expectAgree,
  expectFinite,
  expectNoLeak,
  firstStep,
  registryOf,
  type Subject,
  testTokens,
  variants,
} from './subject.ts';

const [BATCH, TIME, VOCAB] = [4, 12, 19];

/**
 * The contract of an objective: a finite loss with finite gradients, targets that count what the loss sums over,
 * ignored labels without effect, the same gradients however the batch is split, no leaks.
 */
export function describeObjective(subject: Subject): void {
  const registry = registryOf(subject);
  const context = { vocabSize: VOCAB, contextLength: TIME };
  const blocks = [{ block: 'attention', repeat: 1, heads: 2 }];

  describe.each(backendsOf(subject))('objective contract on %s', (backend) => {
    beforeAll(() => useBackend(backend));
    beforeEach(() => tf.engine().startScope());
    afterEach(() => tf.engine().endScope());

    describe.each(variants(subject))('%s', (_title, selected: Selected) => {
      const objective: Objective = registry.create('objective', selected, context);
      const model = registry.create('architecture', { name: 'decoder', dModel: 16, initStd: 0.2, blocks }, context);
      const params = (): Params => ({
        ...model.init(keyedRng(1, 'init')),
        ...prefixed('objective', objective.init?.(keyedRng(1, 'init').scope('objective'), model) ?? {}),
      });

      /** Rows [from, to) of a fixed batch; `ignore` decides which labels are -1. */
      const host = (
        from = 0,
        to = BATCH,
        ignore: (row: number, position: number) => boolean = () => false,
      ): HostBatch => {
        const { lookahead } = objective;
        const ids = [...testTokens(BATCH, TIME + lookahead, VOCAB).dataSync()];
        const rows = Array.from({ length: to - from }, (_, index) => from + index);
        const id = (row: number, position: number) => ids[row * (TIME + lookahead) + position]!;
        const each = <T>(f: (row: number, position: number) => T[]) =>
          rows.flatMap((row) => Array.from({ length: TIME }, (_, position) => f(row, position)).flat());
        return {
          batch: rows.length,
          time: TIME,
          lookahead,
          tokens: Int32Array.from(each((row, position) => [id(row, position)])),
          labels: Int32Array.from(
            each((row, position) =>
              Array.from({ length: lookahead }, (_, view) =>
                ignore(row, position) ? -1 : id(row, position + 1 + view),
              ),
            ),
          ),
        };
      };

      /** Gradients of the batch split into parts, each term divided by its total over all parts. */
      const gradients = (p: Params, parts: readonly HostBatch[]): Params => {
        const totals: Record<string, number> = {};
        for (const part of parts)
          for (const [term, count] of Object.entries(objective.targets(part)))
            totals[term] = (totals[term] ?? 0) + count;
        const sums = parts.map((part) => {
          const f = () => {
            const { terms } = objective.loss({
              model,
              params: p,
              batch: upload(part),
              context: evaluation,
              progress: firstStep,
            });
            const shares = Object.entries(terms).map(([term, { sum, weight }]) => tf.mul(sum, weight / totals[term]!));
            return { result: tf.addN(shares) };
          };
          return differentiateParams(f, p).grads;
        });
        return sums.reduce((a, b) => mapParams(a, (gradient, path) => tf.add(gradient, b[path]!)));
      };
      const uneven = (row: number, position: number) =>
        (row * 5 + position * 3) % 4 === 0 || (row === 1 && position > 2);

      test('loss terms and gradients are finite, and every term has its targets counted', () => {
        const p = params();
        const { terms } = objective.loss({
          model,
          params: p,
          batch: upload(host()),
          context: evaluation,
          progress: firstStep,
        });
        expect(Object.keys(terms).length).toBeGreaterThan(0);
        expect(Object.keys(objective.targets(host())).toSorted()).toEqual(Object.keys(terms).toSorted());
        for (const [term, { sum }] of Object.entries(terms)) {
          expect(sum.shape).toEqual([]);
          expectFinite(sum, `Term "${term}"`);
        }
        for (const [path, gradient] of Object.entries(gradients(p, [host()])))
          expectFinite(gradient, `The gradient of "${path}"`);
      });

      test.each([false, true])('splitting the batch changes no gradient (ignored labels: %s)', (ignoring) => {
        const p = params();
        const ignore = ignoring ? uneven : () => false;
        const whole = gradients(p, [host(0, BATCH, ignore)]);
        const split = gradients(p, [host(0, 1, ignore), host(1, BATCH, ignore)]);
        for (const path of Object.keys(whole))
          expectAgree(split[path]!, whole[path]!, `The gradient of "${path}"`, 1e-6);
      });

      test('a batch without targets adds nothing', () => {
        const p = params();
        const empty = host(0, BATCH, () => true);
        expect(Object.values(objective.targets(empty)).every((count) => count === 0)).toBe(true);
        const { terms } = objective.loss({
          model,
          params: p,
          batch: upload(empty),
          context: evaluation,
          progress: firstStep,
        });
        for (const { sum } of Object.values(terms)) expect(Math.abs(sum.dataSync()[0]!)).toBe(0);
      });

      test('leaves no tensors behind', () => {
        const p = params();
        expectNoLeak(() => tf.tidy(() => gradients(p, [host()]) as tf.TensorContainer));
      });
    });
  });
}
