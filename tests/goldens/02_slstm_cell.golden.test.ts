import { beforeAll, describe, expect, test } from 'vitest';

import { z } from '../../packages/core/src/index.ts';
import { differentiate, tf } from '../../packages/core/src/tensor/index.ts';
import { TEST_BACKENDS, useBackend } from '../../packages/core/src/testing/backends.ts';
import { type SlstmInputs, slstmScan, slstmScanWithState } from '../../packages/plugin-xlstm/src/cell/slstm.ts';
import { loadNativeKernels } from '../../packages/plugin-xlstm/src/native-kernels.ts';
import { GoldenFile } from './golden-file.ts';

const GROUP = '02_slstm_cell';
const golden = GoldenFile.open(GROUP);

const caseSchema = z.object({ S: z.int(), initial_state: z.boolean() });

/** [time, batch, 4 width] as four of [batch, time, width]; R [heads, outputs, inputs] transposed. */
function asInputs(x: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor): SlstmInputs {
  const [inputGate, forgetGate, cellInput, outputGate] = tf.split(tf.transpose(x, [1, 0, 2]), 4, 2) as [
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
  ];
  return { inputGate, forgetGate, cellInput, outputGate, recurrent: tf.transpose(recurrent, [0, 2, 1]), bias };
}

function describeGroup(file: GoldenFile, backend: string): void {
  beforeAll(async () => {
    await useBackend(backend);
    await loadNativeKernels();
  });
  const check: GoldenFile['expect'] = (...args) => file.expect(...args);

  describe.each(Object.entries(file.cases))(`${GROUP} case %s`, (name, given) => {
    const { S: time, initial_state: hasState } = caseSchema.parse(given);
    const names = ['x', 'R', 'b', ...(hasState ? ['state0'] : [])];
    const load = () =>
      names.map((path) => file.tensor(`${name}.in.${path}`)) as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];

    test(`${GROUP} ${name}: outputs and gradients`, () => {
      tf.tidy(() => {
        const tensors = load();
        const weight = file.tensor(`${name}.in.w`);
        const { value, grads } = differentiate(() => {
          const [x, recurrent, bias, state] = tensors;
          const y = tf.transpose(slstmScan(asInputs(x, recurrent, bias), { state }), [1, 0, 2]);
          return { result: tf.sum(tf.mul(y, weight)), y };
        }, tensors);
        check(value.y, `${name}.out.y`);
        expect(file.names(`${name}.grad.`).toSorted()).toEqual(names.toSorted());
        names.forEach((path, index) => check(grads[index]!, `${name}.grad.${path}`));
      });
    });

    test(`${GROUP} ${name}: states, all at once and step by step`, () => {
      tf.tidy(() => {
        const [x, recurrent, bias, initial] = load();
        const whole = slstmScanWithState(asInputs(x, recurrent, bias), { state: initial });
        const last = tf.unstack(whole.state);
        ['y', 'c', 'n', 'm'].slice(1).forEach((part, index) => check(last[index + 1]!, `${name}.out.${part}`));
        let state = initial;
        const steps = tf.split(x, time, 0).map((now) => {
          const result = slstmScanWithState(asInputs(now, recurrent, bias), { state });
          state = result.state;
          return { y: tf.transpose(result.y, [1, 0, 2]), m: tf.unstack(result.state)[3]! };
        });
        check(
          tf.concat(
            steps.map(({ y }) => y),
            0,
          ),
          `${name}.out.y`,
        );
        check(tf.stack(steps.map(({ m }) => m)), `${name}.out.m_all`);
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
