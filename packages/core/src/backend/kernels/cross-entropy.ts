import { floats, integers, type Kernel } from './storage.ts';

/** `LlmxCrossEntropy`: per row of `logits` [rows, vocab] the loss in nats [rows] and its derivative [rows, vocab]. */
export const crossEntropy: Kernel = (storage, inputs) => {
  const [rows, vocab] = inputs['logits']!.shape as [number, number];
  const outputs = [storage.allocate([rows]), storage.allocate([rows, vocab])];
  const [loss, gradient] = outputs.map((info) => floats(storage, info)) as [Float32Array, Float32Array];
  const [logits, labels] = [floats(storage, inputs['logits']), integers(storage, inputs['labels'])];
  for (let row = 0; row < rows; row++) {
    const [start, label] = [row * vocab, labels[row]!];
    if (label < 0) {
      loss[row] = 0;
      gradient.fill(0, start, start + vocab);
      continue;
    }
    let peak = -Infinity;
    for (let index = start; index < start + vocab; index++) peak = Math.max(peak, logits[index]!);
    let sum = 0;
    for (let index = start; index < start + vocab; index++) sum += gradient[index] = Math.exp(logits[index]! - peak);
    for (let index = start; index < start + vocab; index++) gradient[index]! /= sum;
    gradient[start + label]! -= 1;
    loss[row] = Math.log(sum) + peak - logits[start + label]!;
  }
  return outputs;
};
