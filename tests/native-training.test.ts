// Whole training steps on the C++ engine: the same bits for every number of threads, and nothing that grows.
import { createHash } from 'node:crypto';

import { beforeAll, expect, test } from 'vitest';

import { nativeBackend, registerNativeBackend } from '@llmx/backend-native';

import { builtin } from '../packages/core/src/builtin.ts';
import { HookDriver } from '../packages/core/src/plugin/hook-driver.ts';
import { Registry } from '../packages/core/src/plugin/registry.ts';
import type { HostBatch } from '../packages/core/src/plugin/types.ts';
import { keyedRng, stateTensors, tf } from '../packages/core/src/tensor/index.ts';
import { available, describeEngine } from '../packages/backend-native/src/testing/kernels.ts';
import { trainStep, type TrainState } from '../packages/core/src/train/step.ts';

const [BATCH, TIME, VOCAB] = [3, 37, 101];
const registry = new Registry([builtin]);
const context = { vocabSize: VOCAB, contextLength: TIME };

/** Sizes that no vector length divides, each kind of block. */
const SHAPES = {
  'GPT-2': { dModel: 36, blocks: [{ block: 'attention', repeat: 2, heads: 3, dropout: 0.1 }] },
  'Llama with a window': {
    dModel: 40,
    positions: 'rotary',
    norm: 'rmsnorm',
    tieEmbeddings: false,
    blocks: [
      {
        block: 'attention',
        repeat: 2,
        heads: 4,
        kvHeads: 2,
        window: 11,
        positions: 'rotary',
        norm: 'rmsnorm',
        activation: 'swiglu',
        bias: false,
      },
    ],
  },
};

function batch(step: number): HostBatch {
  const ids = (shift: number) =>
    Int32Array.from({ length: BATCH * TIME }, (_, index) => (index * 31 + step * 7 + shift) % VOCAB);
  const segments = Int32Array.from({ length: BATCH * TIME }, (_, index) => Math.floor((index % TIME) / 13));
  const positions = segments.map((_, index) => (index % TIME) % 13);
  return { batch: BATCH, time: TIME, lookahead: 1, tokens: ids(0), labels: ids(31), segments, positions };
}

/** A training run: `step` does the next step. */
function training(options: object, optimizer: string) {
  const model = registry.create('architecture', { name: 'decoder', ...options }, context);
  const objective = registry.create('objective', { name: 'next-token' }, context);
  const rule = registry.create('optimizer', { name: optimizer }, {});
  const length = { totalSteps: 10, tokensPerStep: 2 * BATCH * TIME };
  const recipe = { model, objective, optimizer: rule, hooks: new HookDriver([]), seed: 1, length, gradClip: 1 };
  const params = model.init(keyedRng(1, 'init'));
  let state: TrainState = { params, frozen: {}, optimizer: rule.init(params) };
  let done = 0;
  return {
    /** Gives the loss in nats. */
    step(): number {
      done += 1;
      const input = { info: { step: done, tokensSeen: 0 }, lr: 0.01, micros: [batch(2 * done), batch(2 * done + 1)] };
      const next = trainStep(recipe, state, input);
      const [loss] = next.scalars['loss']!.dataSync();
      tf.dispose(next.scalars);
      ({ state } = next);
      return loss!;
    },
    tensors: () => [...Object.values(state.params), ...stateTensors(state.optimizer)],
  };
}

describeEngine('training on the C++ engine', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  test.for([
    ['GPT-2', 'fp32'],
    ['GPT-2', 'bf16'],
    ['Llama with a window', 'fp32'],
    ['Llama with a window', 'bf16'],
  ] as const)('gives the same bits for every number of threads: %s, %s', async ([shape, precision]) => {
    await registerNativeBackend({ precision });
    const outcomes = [1, 2, 3, 5].map((threads) => {
      nativeBackend().library.setThreads(threads);
      const run = training(SHAPES[shape], 'adamw');
      for (let step = 0; step < 5; step++) run.step();
      const hash = createHash('sha256');
      for (const tensor of run.tensors()) hash.update(tensor.dataSync());
      tf.dispose(run.tensors());
      return hash.digest('hex');
    });
    expect(new Set(outcomes).size).toBe(1);
    await registerNativeBackend();
  });

  test('trains in bfloat16 on every instruction set, near float32 but not as it', async () => {
    const losses = (): number[] => {
      const run = training(SHAPES['Llama with a window'], 'adamw');
      const seen = Array.from({ length: 8 }, () => run.step());
      tf.dispose(run.tensors());
      return seen;
    };
    const exact = losses();
    await registerNativeBackend({ precision: 'bf16' });
    const { library } = nativeBackend();
    for (const instructionSet of available) {
      library.setInstructionSet(instructionSet);
      const rounded = losses();
      expect(rounded, instructionSet).not.toEqual(exact);
      rounded.forEach((loss, step) => expect(Math.abs(loss / exact[step]! - 1), instructionSet).toBeLessThan(0.01));
    }
    await registerNativeBackend();
  });

  test('holds as many tensors and as much memory after 1,000 steps as after 10', { timeout: 120_000 }, () => {
    const run = training({ ...SHAPES['GPT-2'], dModel: 12 }, 'adamw');
    const { memoryPool, library } = nativeBackend();
    // One thread: which of several works how much is chance, and so is the working memory that each one needs.
    library.setThreads(1);
    const measured = () => ({
      tensors: tf.memory().numTensors,
      used: memoryPool.usedBytes,
      reserved: memoryPool.reservedBytes,
      scratch: library.scratchBytes,
    });
    for (let step = 0; step < 10; step++) run.step();
    const early = measured();
    for (let step = 0; step < 990; step++) run.step();
    expect(measured()).toEqual(early);
    tf.dispose(run.tensors());
  });
});
