import { requireShape } from '../check.ts';
import type { NativeKernel, TensorInfo } from '../engine.ts';

// Logits are kept for the backward pass up to this size; computing them again costs a quarter of the time.
const KEPT_BYTES = 128 * 2 ** 20;

/** The operands of linear + cross-entropy, and their lengths [rows, width, vocab]. */
interface Head {
  readonly tensors: readonly [hidden: TensorInfo, weight: TensorInfo, labels: TensorInfo];
  readonly lengths: readonly [number, number, number];
  readonly transposed: boolean;
}

function headOf(kernel: string, ...[, inputs, attributes]: Parameters<NativeKernel>): Head {
  const { transposed = false } = attributes as { transposed?: boolean };
  const hidden = requireShape(kernel, 'hidden', inputs['hidden'], [undefined, undefined]);
  const [rows, width] = hidden.shape as [number, number];
  const weight = requireShape(kernel, 'weight', inputs['weight'], transposed ? [undefined, width] : [width, undefined]);
  const labels = requireShape(kernel, 'labels', inputs['labels'], [rows], 'int32');
  return { tensors: [hidden, weight, labels], lengths: [rows, width, weight.shape[transposed ? 0 : 1]!], transposed };
}

/**
 * `hidden` [rows, width], `weight` [width, vocab] (`transposed`: [vocab, width]) and `labels` int32 [rows] (negative: ignored) to
 * the loss in nats [rows], the log of the sum of the logits' exponentials [rows], and the logits [rows, vocab], or [0] where they
 * are too many to be kept.
 */
const linearCrossEntropy: NativeKernel = (engine, inputs, attributes) => {
  const { tensors, lengths, transposed } = headOf('LlmxLinearCrossEntropy', engine, inputs, attributes);
  const [rows, , vocab] = lengths;
  const isKept = rows * vocab * Float32Array.BYTES_PER_ELEMENT <= KEPT_BYTES;
  const [loss, logSum] = [engine.allocate([rows]), engine.allocate([rows])];
  const logits = engine.allocate(isKept ? [rows, vocab] : [0]);
  const outputs = [loss, isKept ? logits : undefined, logSum];
  engine.run(
    'LlmxLinearCrossEntropy',
    [...tensors, ...outputs],
    [...lengths, Number(transposed), Number(engine.roundsProducts)],
    [0],
  );
  return [loss, logSum, logits];
};

/** Gradients by `hidden` and `weight`, given `dy` [rows] and what the forward kernel returned. */
const linearCrossEntropyGrad: NativeKernel = (engine, inputs, attributes) => {
  const name = 'LlmxLinearCrossEntropyGrad';
  const { tensors, lengths, transposed } = headOf(name, engine, inputs, attributes);
  const [rows, , vocab] = lengths;
  const [hidden, weight] = tensors;
  const dy = requireShape(name, 'dy', inputs['dy'], [rows]);
  const logSum = requireShape(name, 'logSum', inputs['logSum'], [rows]);
  const isKept = inputs['logits']?.shape.length === 2;
  const logits = requireShape(name, 'logits', inputs['logits'], isKept ? [rows, vocab] : [0]);
  const gradients = [engine.allocate(hidden.shape), engine.allocate(weight.shape)];
  const given = [dy, ...tensors, isKept ? logits : undefined, logSum];
  engine.run(name, [...given, ...gradients], [...lengths, Number(transposed), Number(engine.roundsProducts)], [1]);
  return gradients;
};

/** Per row of `logits` [rows, vocab] the loss in nats [rows] and its derivative [rows, vocab]; negative labels are ignored. */
const crossEntropy: NativeKernel = (engine, inputs) => {
  const logits = requireShape('LlmxCrossEntropy', 'logits', inputs['logits'], [undefined, undefined]);
  const [rows] = logits.shape as [number, number];
  const labels = requireShape('LlmxCrossEntropy', 'labels', inputs['labels'], [rows], 'int32');
  const outputs = [engine.allocate([rows]), engine.allocate(logits.shape)];
  engine.run('LlmxCrossEntropy', [logits, labels, ...outputs]);
  return outputs;
};

export const crossEntropyKernels: Readonly<Record<string, NativeKernel>> = {
  LlmxCrossEntropy: crossEntropy,
  LlmxLinearCrossEntropy: linearCrossEntropy,
  LlmxLinearCrossEntropyGrad: linearCrossEntropyGrad,
};
