import { beforeAll, describe, expect, test } from 'vitest';

import { z } from '../../packages/core/src/index.ts';
import { differentiate, tf } from '../../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../../packages/core/src/testing/backends.ts';
import type { MlstmInputs, MlstmState } from '../../packages/plugin-xlstm/src/cell/mlstm-chunk.ts';
import { mlstmStep } from '../../packages/plugin-xlstm/src/cell/mlstm-step.ts';
import { mlstm, mlstmWithState } from '../../packages/plugin-xlstm/src/cell/mlstm.ts';
import { loadNativeKernels } from '../../packages/plugin-xlstm/src/native-kernels.ts';
import { GoldenFile } from './golden-file.ts';

const GROUP = '01_mlstm_cell';
const golden = GoldenFile.open(GROUP);

const caseSchema = z.object({ S: z.int(), DH: z.int(), chunk: z.int(), initial_state: z.boolean() });

/** Inputs and the initial state in the order of the stored gradients. */
const INPUTS = ['q', 'k', 'v', 'i', 'f'] as const;
const STATE = ['C0', 'n0', 'm0'] as const;

/** Between [batch, heads, time, ...] of the reference and [batch, time, heads, ...]. */
const swapped = (x: tf.Tensor): tf.Tensor => tf.transpose(x, x.rank === 4 ? [0, 2, 1, 3] : [0, 2, 1]);

function asInputs(tensors: readonly tf.Tensor[]): MlstmInputs {
  const [query, key, value, inputGate, forgetGate] = tensors as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  return { query, key, value, inputGate, forgetGate };
}

function asState(tensors: readonly tf.Tensor[]): MlstmState | undefined {
  const [memory, normalizer, maximum] = tensors;
  return memory && normalizer && maximum && { memory, normalizer, maximum };
}

/** What a form gives for inputs [batch, heads, time, ...] and an initial state. */
type Form = (inputs: readonly tf.Tensor[], state: readonly tf.Tensor[]) => tf.Tensor;

/** The op, with chunks of a length. */
const chunks =
  (chunk: number): Form =>
  (inputs, state) =>
    swapped(mlstm(asInputs(inputs.map(swapped)), { chunk, state: asState(state) }));

/** States after each position, and their outputs. */
function recurrence(inputs: readonly tf.Tensor[], initial: readonly tf.Tensor[]) {
  const [batch, heads, time, size] = inputs[0]!.shape as [number, number, number, number];
  let state = asState(initial) ?? {
    memory: tf.zeros([batch, heads, size, size]),
    normalizer: tf.zeros([batch, heads, size]),
    maximum: tf.zeros([batch, heads]),
  };
  const outputs: tf.Tensor[] = [];
  const maxima: tf.Tensor[] = [];
  const split = inputs.map((input) => tf.split(input, time, 2));
  for (let t = 0; t < time; t++) {
    const result = mlstmStep(asInputs(split.map((parts) => parts[t]!)), state, 1e-6);
    outputs.push(result.h);
    state = result.state;
    maxima.push(state.maximum);
  }
  return { h: tf.concat(outputs, 2), state, maxima: tf.stack(maxima, 2) };
}

function describeGroup(file: GoldenFile, backend: string): void {
  beforeAll(async () => {
    await useBackend(backend);
    await loadNativeKernels();
  });

  describe.each(Object.entries(file.cases))(`${GROUP} case %s`, (name, given) => {
    const { S: time, DH: size, chunk, initial_state: hasState } = caseSchema.parse(given);
    const squeezed = (path: string): tf.Tensor => tf.squeeze(file.tensor(`${name}.in.${path}`), [3]);
    const load = () => ({
      inputs: INPUTS.map((path) => (path === 'i' || path === 'f' ? squeezed(path) : file.tensor(`${name}.in.${path}`))),
      state: hasState
        ? [file.tensor(`${name}.in.C0`), squeezed('n0'), tf.squeeze(file.tensor(`${name}.in.m0`), [2, 3])]
        : [],
    });

    function checkForm(prefix: string, form: Form): void {
      const { inputs, state } = load();
      const arguments_ = [...inputs, ...state];
      const run = () => form(arguments_.slice(0, INPUTS.length), arguments_.slice(INPUTS.length));
      file.expect(run(), `${name}.${prefix}.h`, { anyForm: prefix === 'par' });
      const stored = file.names(`${name}.${prefix}.grad_`);
      if (stored.length === 0) return;
      const weight = file.tensor(`${name}.in.w`);
      const { grads } = differentiate(() => ({ result: tf.sum(tf.mul(run(), weight)) }), arguments_);
      for (const path of stored) {
        const place = [...INPUTS, ...STATE].findIndex((input) => input === path);
        // The gradients take m as a constant, the reference's do not: a difference through epsilon.
        file.expect(grads[place]!, `${name}.${prefix}.grad_${path}`, { anyForm: true });
      }
    }

    /** The reference's chunkwise form scales queries where the others scale keys, so its states are larger. */
    function checkState(prefix: string, { memory, normalizer, maximum }: MlstmState): void {
      const factor = prefix === 'chunk' ? Math.sqrt(size) : 1;
      file.expect(tf.mul(memory, factor), `${name}.${prefix}.C`);
      file.expect(tf.mul(normalizer, factor), `${name}.${prefix}.n`);
      file.expect(maximum, `${name}.${prefix}.m`);
    }

    test(`${GROUP} ${name}: parallel form`, ({ skip }) => {
      if (hasState) skip('the parallel form has no initial state');
      tf.tidy(() => checkForm('par', chunks(time)));
    });

    test(`${GROUP} ${name}: chunkwise form and its states`, () => {
      tf.tidy(() => {
        checkForm('chunk', chunks(chunk));
        const { inputs, state } = load();
        const before = { chunk, state: asState(state) };
        checkState('chunk', mlstmWithState(asInputs(inputs.map(swapped)), before).state);
      });
    });

    test(`${GROUP} ${name}: recurrent form and its states`, () => {
      tf.tidy(() => {
        checkForm('rec', (inputs, state) => recurrence(inputs, state).h);
        const { inputs, state } = load();
        const result = recurrence(inputs, state);
        checkState('rec', result.state);
        file.expect(result.maxima, `${name}.rec.m_all`);
        // The op at one position a time, which is how decoding runs it.
        checkForm('rec', chunks(1));
        checkState('rec', mlstmWithState(asInputs(inputs.map(swapped)), { chunk: 1, state: asState(state) }).state);
      });
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
