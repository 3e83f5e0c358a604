import { at, customOp, dims, isRecording, type Params, runKernel, tf } from '@llmx/core';

import { scanBackward, scanForward, type ScanSizes } from './slstm-arrays.ts';

/** What a scan takes; the four gate inputs are float32 [batch, time, width], width = heads x size, head-major. */
export interface SlstmInputs {
  readonly inputGate: tf.Tensor;
  readonly forgetGate: tf.Tensor;
  readonly cellInput: tf.Tensor;
  readonly outputGate: tf.Tensor;
  /** float32 [heads, size, 4 size]: from the last output to the gates, which are in the order i, f, z, o. */
  readonly recurrent: tf.Tensor;
  /** float32 [4 width], gate by gate in the same order. */
  readonly bias: tf.Tensor;
}

export interface SlstmOptions {
  /** Documents, int32 [batch, time]: the state is reset where they change. */
  readonly segments?: tf.Tensor | undefined;
  /** y, c, n and m before the first position, float32 [4, batch, width]; absent: zero. */
  readonly state?: tf.Tensor | undefined;
}

const GATES = ['inputGate', 'forgetGate', 'cellInput', 'outputGate'] as const;
type Four<T> = readonly [T, T, T, T];

const floats = (x: tf.Tensor): Float32Array => x.dataSync<'float32'>();
const optionalFloats = (x: tf.Tensor | undefined): Float32Array | undefined => x && floats(x);
const integers = (x: tf.Tensor | undefined): Int32Array | undefined => x?.dataSync<'int32'>();

/** The kernel `XlstmSlstmScan` on the host. */
function hostForward(named: Params): tf.Tensor[] {
  const [batch, time, width] = dims(at(named, 'inputGate'), 3);
  const [heads, size] = dims(at(named, 'recurrent'), 3);
  const { y, state, gates, cells } = scanForward(
    { batch, time, heads, size },
    {
      inputs: GATES.map((name) => floats(at(named, name))) as unknown as Four<Float32Array>,
      recurrent: floats(at(named, 'recurrent')),
      bias: floats(at(named, 'bias')),
      segments: integers(named['segments']),
      state: optionalFloats(named['state']),
    },
  );
  return [
    tf.tensor(y, [batch, time, width]),
    tf.tensor(state, [4, batch, width]),
    tf.tensor(gates, [batch, time, 4 * width]),
    tf.tensor(cells, [batch, time, 3 * width]),
  ];
}

/** The kernel `XlstmSlstmScanGrad` on the host. */
function hostBackward(named: Params): tf.Tensor[] {
  const dy = at(named, 'dy');
  const [batch, time, width] = dims(dy, 3);
  const [heads, size] = dims(at(named, 'recurrent'), 3);
  const sizes: ScanSizes = { batch, time, heads, size };
  const gradients = scanBackward(sizes, floats(dy), {
    recurrent: floats(at(named, 'recurrent')),
    y: floats(at(named, 'y')),
    gates: floats(at(named, 'saved0')),
    cells: floats(at(named, 'saved1')),
    segments: integers(named['segments']),
    state: optionalFloats(named['state']),
  });
  return [
    ...gradients.inputs.map((values) => tf.tensor(values, [batch, time, width])),
    tf.tensor(gradients.recurrent, [heads, size, 4 * size]),
    tf.tensor(gradients.bias, [4 * width]),
    ...(named['state'] === undefined ? [] : [tf.tensor(gradients.state, [4, batch, width])]),
  ];
}

const forward = (named: Params, training: boolean): tf.Tensor[] =>
  runKernel('XlstmSlstmScan', named, { training }) ?? hostForward(named);

const given = ({ segments, state }: SlstmOptions): Params => ({
  ...(segments && { segments }),
  ...(state && { state }),
});

/**
 * The scan of the sLSTM over time (Beck et al. 2024, arXiv 2405.04517, equations 8 to 18), stabilised, with memory mixing
 * within each head: one op forward and one backward.
 *
 * @returns y, float32 [batch, time, width]
 */
export function slstmScan(inputs: SlstmInputs, options: SlstmOptions = {}): tf.Tensor {
  if (!isRecording()) return tf.tidy(() => slstmScanWithState(inputs, options).y);
  const { recurrent } = inputs;
  const { state } = options;
  return customOp(
    [...GATES.map((name) => inputs[name]), recurrent, inputs.bias, ...(state ? [state] : [])],
    (save) => {
      const [y, , ...saved] = forward({ ...inputs, ...given(options) }, true);
      save([recurrent, y!, ...(state ? [state] : []), ...saved]);
      return y!;
    },
    (dy, [savedRecurrent, y, ...rest]) => {
      const before = state ? { state: rest[0]! } : {};
      const own = rest.slice(state ? 1 : 0);
      const saved = Object.fromEntries(own.map((tensor, index) => [`saved${index}`, tensor]));
      const named = {
        dy,
        recurrent: savedRecurrent!,
        y: y!,
        ...given({ segments: options.segments }),
        ...before,
        ...saved,
      };
      return runKernel('XlstmSlstmScanGrad', named) ?? hostBackward(named);
    },
  );
}

/** Like `slstmScan`, with the state after the last position; not recorded for differentiation. */
export function slstmScanWithState(
  inputs: SlstmInputs,
  options: SlstmOptions = {},
): { y: tf.Tensor; state: tf.Tensor } {
  const [y, state, ...saved] = forward({ ...inputs, ...given(options) }, false) as [tf.Tensor, tf.Tensor];
  tf.dispose(saved);
  return { y, state };
}
