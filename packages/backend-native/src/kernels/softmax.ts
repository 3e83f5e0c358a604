import type { NativeKernel } from '../engine.ts';
import { fallback } from '../fallback.ts';
import { sizeOf } from './elementwise.ts';

/** `logits` to probabilities along the last axis, or to their logarithms. */
function softmax(name: 'Softmax' | 'LogSoftmax', axisName: 'dim' | 'axis'): NativeKernel {
  return (engine, inputs, attributes) => {
    const logits = inputs['logits']!;
    const axis = attributes[axisName] as number;
    const width = logits.shape.at(-1);
    const isLast = axis === -1 || axis === logits.shape.length - 1;
    if (logits.dtype !== 'float32' || width === undefined || !isLast) return fallback(name)(engine, inputs, attributes);
    const y = engine.allocate(logits.shape);
    const rows = sizeOf(logits.shape.slice(0, -1));
    engine.run('LlmxSoftmax', [logits, y], [rows, width, Number(name === 'LogSoftmax')]);
    return [y];
  };
}

export const softmaxKernels: Readonly<Record<string, NativeKernel>> = {
  Softmax: softmax('Softmax', 'dim'),
  LogSoftmax: softmax('LogSoftmax', 'axis'),
};
