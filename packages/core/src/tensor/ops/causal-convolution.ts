import { customOp, runKernel } from '../custom-op.ts';
import { dims } from '../dims.ts';
import { tf } from '../tf.ts';
import { columnSums } from './column-sums.ts';

/** `x` moved `steps` positions later along time (earlier if negative), zeros moving in. */
function shift(x: tf.Tensor, steps: number): tf.Tensor {
  const [, time] = dims(x, 3);
  const distance = Math.min(Math.abs(steps), time);
  const padding: [number, number] = steps > 0 ? [distance, 0] : [0, distance];
  const part = tf.slice(x, [0, steps > 0 ? 0 : distance, 0], [-1, time - distance, -1]);
  return tf.pad(part, [[0, 0], padding, [0, 0]]);
}

/**
 * Causal depthwise convolution over time: y[t] = bias + sum over j of weight[j] * x[t - taps + 1 + j]; the last tap
 * sees the present, positions before the first are zero.
 *
 * @param x float32 [batch, time, channels]
 * @param weight float32 [taps, channels]
 * @param bias float32 [channels], optional
 */
export function causalConvolution(x: tf.Tensor, weight: tf.Tensor, bias?: tf.Tensor): tf.Tensor {
  const [taps, channels] = dims(weight, 2);
  const lags = Array.from({ length: taps }, (_, tap) => taps - 1 - tap);
  const rows = (tensor: tf.Tensor): tf.Tensor[] => tf.unstack(tensor, 0);
  return customOp(
    bias === undefined ? [x, weight] : [x, weight, bias],
    (save) => {
      save([x, weight]);
      const inputs = bias === undefined ? { x, weight } : { x, weight, bias };
      const [kernelResult] = runKernel('LlmxCausalConvolution', inputs) ?? [];
      if (kernelResult !== undefined) return kernelResult;
      const terms = rows(weight).map((tap, index) => tf.mul(shift(x, lags[index]!), tap));
      const sum = tf.addN(terms);
      return bias === undefined ? sum : tf.add(sum, bias);
    },
    (dy, saved) => {
      const [savedX, savedWeight] = saved as [tf.Tensor, tf.Tensor];
      const kernelResult = runKernel('LlmxCausalConvolutionGrad', { dy, x: savedX, weight: savedWeight });
      const gradients = kernelResult ?? [
        tf.addN(rows(savedWeight).map((tap, index) => tf.mul(shift(dy, -lags[index]!), tap))),
        tf.stack(lags.map((lag) => columnSums(tf.reshape(tf.mul(dy, shift(savedX, lag)), [-1, channels])))),
        columnSums(tf.reshape(dy, [-1, channels])),
      ];
      return bias === undefined ? gradients.slice(0, 2) : gradients;
    },
  );
}
