import { beforeAll, describe, expect, test } from 'vitest';

import { builtin } from '../builtin.ts';
import { HookDriver } from '../plugin/hook-driver.ts';
import { Registry } from '../plugin/registry.ts';
import type { HostBatch, Params } from '../plugin/types.ts';
import { keyedRng, mapParams, tf, uniformValues } from '../tensor/index.ts';
import { expectClose, largestDifference, largestMagnitude } from '../testing/close.ts';
import { TEST_BACKENDS, useBackend } from '../testing/backends.ts';
import { globalNorm, trainStep, type Recipe, type TrainState } from './step.ts';

const [TIME, VOCAB] = [10, 31];

/** Rows [from, to) of a fixed batch of eight; some labels are -1 if `ignoring`. */
function host(from: number, to: number, ignoring: boolean): HostBatch {
  const ids = uniformValues({ low: 1, high: 2 }, 8 * (TIME + 1));
  const id = (row: number, place: number) => Math.floor(ids[row * (TIME + 1) + place]! * VOCAB);
  const each = (f: (row: number, place: number) => number) =>
    Int32Array.from({ length: (to - from) * TIME }, (_, index) => f(from + Math.floor(index / TIME), index % TIME));
  const ignored = (row: number, place: number) => ignoring && (row === 2 || (row + place) % 3 === 0);
  return {
    batch: to - from,
    time: TIME,
    lookahead: 1,
    tokens: each(id),
    labels: each((row, place) => (ignored(row, place) ? -1 : id(row, place + 1))),
  };
}

describe.each(TEST_BACKENDS)('a training step on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  const registry = new Registry([builtin]);
  const context = { vocabSize: VOCAB, contextLength: TIME };

  /** One step with plain gradient descent, which moves each parameter by its gradient. */
  const recipe = (options: { dropout?: number; gradClip?: number; hooks?: HookDriver } = {}): Recipe => {
    const { dropout = 0, gradClip = 0, hooks = new HookDriver([]) } = options;
    const blocks = [{ block: 'attention', repeat: 2, heads: 2, dropout }];
    const selected = { name: 'decoder', dModel: 16, initStd: 0.1, dropout, blocks };
    return {
      model: registry.create('architecture', selected, context),
      objective: registry.create('objective', { name: 'next-token' }, context),
      optimizer: registry.create('optimizer', { name: 'sgd' }, {}),
      hooks,
      seed: 1,
      length: { totalSteps: 10, tokensPerStep: 8 * TIME },
      gradClip,
    };
  };
  const start = ({ model, optimizer }: Recipe): TrainState => {
    const params = model.init(keyedRng(1, 'init'));
    return { params, frozen: {}, optimizer: optimizer.init(params) };
  };
  const step = (given: Recipe, micros: HostBatch[], info = { step: 1, tokensSeen: 80 }) =>
    trainStep(given, start(given), { info, lr: 1, micros });
  /** The gradients of a step: what it took away from the parameters. */
  const gradients = (given: Recipe, micros: HostBatch[], which = 1): Record<string, Float32Array> => {
    let seen: Params = {};
    const hooks = new HookDriver([
      {
        name: 'watch',
        version: '1.0.0',
        hooks: {
          gradients: (grads) =>
            void (seen = Object.fromEntries(
              Object.entries(grads).map(([path, value]) => [path, tf.keep(value.clone())]),
            )),
        },
      },
    ]);
    step({ ...given, hooks }, micros, { step: which, tokensSeen: 0 });
    return Object.fromEntries(Object.entries(seen).map(([path, value]) => [path, value.dataSync() as Float32Array]));
  };

  test.each([
    [false, 0],
    [true, 0],
    [false, 0.2],
    [true, 0.2],
  ])(
    'a batch of 8 and 4 x 2 accumulated give the same gradients (ignored labels: %s, dropout: %d)',
    (ignoring, dropout) => {
      const given = recipe({ dropout });
      const whole = gradients(given, [host(0, 8, ignoring)]);
      const split = gradients(
        given,
        [0, 2, 4, 6].map((from) => host(from, from + 2, ignoring)),
      );
      for (const [path, values] of Object.entries(whole)) {
        const scale = largestMagnitude(values);
        // A key bias has no effect, so its gradient is rounding alone.
        if (path.endsWith('key.bias')) continue;
        expect(largestDifference(split[path]!, values).difference / scale, path).toBeLessThan(1e-6);
      }
    },
  );

  test('dropout differs from step to step and is the same at the same step', () => {
    const given = recipe({ dropout: 0.3 });
    const at = (which: number) => gradients(given, [host(0, 8, false)], which)['norm.weight']!;
    expect(at(3)).toEqual(at(3));
    expect(at(3)).not.toEqual(at(4));
  });

  test('clipping scales all gradients to the norm asked for, and reports the norm before', () => {
    const given = recipe({ gradClip: 1e-3 });
    const before = start(given);
    const kept = Object.fromEntries(Object.entries(before.params).map(([path, value]) => [path, value.clone()]));
    const { state, scalars } = trainStep(given, before, {
      info: { step: 1, tokensSeen: 80 },
      lr: 1,
      micros: [host(0, 8, false)],
    });
    const moved = Object.fromEntries(
      Object.entries(state.params).map(([path, value]) => [path, tf.sub(kept[path]!, value)]),
    );
    expectClose(globalNorm(moved), [1e-3], 2e-5, 'norm of the update');
    expect(scalars['gradNorm']!.dataSync()[0]).toBeGreaterThan(0.01);
  });

  test('clipping in the optimizer and before it give the same bits, and hooks see gradients that are not clipped', () => {
    let inspected: Params = {};
    const inspect = ({ grads }: { grads: Params }) => void (inspected = mapParams(grads, (g) => tf.keep(g.clone())));
    const hooks = new HookDriver([{ name: 'watch', version: '1.0.0', hooks: { inspect } }]);
    const optimizer = registry.create('optimizer', { name: 'adamw' }, {});
    const { init, update } = optimizer;
    const after = (given: Partial<Recipe>) => {
      const { state } = step({ ...recipe({ gradClip: 1e-3 }), ...given }, [host(0, 8, false)]);
      return Object.values(state.params).map((value) => value.dataSync());
    };
    const clipped = after({ optimizer, hooks });
    expect(clipped).toEqual(after({ optimizer: { init, update } }));
    expect(clipped).not.toEqual(after({ optimizer, gradClip: 0 }));
    expect(globalNorm(inspected).dataSync()[0]).toBeGreaterThan(0.01);
  });

  test('a step lowers the loss of its own batch, consumes its state and leaves no tensors behind', () => {
    const given = recipe();
    const batch = [host(0, 8, false)];
    const first = step(given, batch);
    tf.dispose(first.scalars);
    const tensors = tf.memory().numTensors;
    const loss = first.state;
    const second = trainStep(given, loss, { info: { step: 2, tokensSeen: 160 }, lr: 0.1, micros: batch });
    const third = trainStep(given, second.state, { info: { step: 3, tokensSeen: 240 }, lr: 0.1, micros: batch });
    expect(third.scalars['loss']!.dataSync()[0]).toBeLessThan(second.scalars['loss']!.dataSync()[0]!);
    tf.dispose([second.scalars, third.scalars]);
    expect(tf.memory().numTensors).toBe(tensors);
  });

  test('frozen parameters stay, have no part in the norm, and need no memory for activations', async () => {
    const given = recipe();
    const whole = gradients(given, [host(0, 8, false)]);
    /** Bytes that a step takes at most. */
    const peak = async (isTrained: (path: string) => boolean): Promise<number> => {
      const all = Object.entries(given.model.init(keyedRng(1, 'init')));
      const params = Object.fromEntries(all.filter(([path]) => isTrained(path)));
      const frozen = Object.fromEntries(all.filter(([path]) => !isTrained(path)));
      const before = Object.values(frozen).map((value) => value.dataSync().slice());
      const held = tf.memory().numBytes;
      let result: ReturnType<typeof trainStep>;
      const { peakBytes } = await tf.profile(() => {
        const state: TrainState = { params, frozen, optimizer: given.optimizer.init(params) };
        result = trainStep(given, state, { info: { step: 1, tokensSeen: 80 }, lr: 1, micros: [host(0, 8, false)] });
        return [];
      });
      const { state, scalars } = result!;
      expect(Object.values(state.frozen).map((value) => value.dataSync())).toEqual(before);
      const squares = Object.entries(whole).flatMap(([path, values]) => (isTrained(path) ? [...values] : []));
      expect(scalars['gradNorm']!.dataSync()[0]).toBeCloseTo(Math.hypot(...squares), 4);
      return peakBytes - held;
    };
    const [part, everything] = [await peak((path) => path.startsWith('norm.')), await peak(() => true)];
    expect(part / everything).toBeLessThan(0.5);
  });

  test('hooks may replace gradients and add scalars', () => {
    const hooks = new HookDriver([
      {
        name: 'freeze',
        version: '1.0.0',
        hooks: {
          gradients: (grads) =>
            Object.fromEntries(Object.entries(grads).map(([path, value]) => [path, tf.zerosLike(value)])),
          inspect: ({ params }) => ({ 'norm/scale': tf.mean(params['norm.weight']!) }),
        },
      },
    ]);
    const given = recipe({ hooks });
    const { state, scalars } = step(given, [host(0, 8, false)]);
    const initial = given.model.init(keyedRng(1, 'init'));
    for (const [path, value] of Object.entries(state.params)) expectClose(value, initial[path]!, 0, path);
    expect(scalars['gradNorm']!.dataSync()[0]).toBe(0);
    expect(scalars['norm/scale']!.dataSync()[0]).toBe(1);
  });
});
