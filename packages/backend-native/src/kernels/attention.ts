import { requireShape } from '../check.ts';
import type { Engine, NativeKernel, TensorInfo } from '../engine.ts';

type Inputs = Parameters<NativeKernel>[1];
type Attributes = Parameters<NativeKernel>[2];

/** The inputs that both directions share, checked, and the numbers of the C++ kernels. */
function readInputs(kernel: string, engine: Engine, inputs: Inputs, attributes: Attributes) {
  const query = requireShape(kernel, 'query', inputs['query'], [undefined, undefined, undefined, undefined]);
  const [batch, queryTime, heads, size] = query.shape as [number, number, number, number];
  const key = requireShape(kernel, 'key', inputs['key'], [batch, undefined, undefined, size]);
  const [, keyTime, kvHeads] = key.shape as [number, number, number, number];
  const value = requireShape(kernel, 'value', inputs['value'], key.shape);
  // Queries are the last positions, and each key head serves equally many of theirs.
  if (keyTime < queryTime) requireShape(kernel, 'query', query, [batch, keyTime, heads, size]);
  if (kvHeads === 0 || heads % kvHeads !== 0) requireShape(kernel, 'key', key, [batch, keyTime, heads, size]);
  const segments =
    inputs['segments'] && requireShape(kernel, 'segments', inputs['segments'], [batch, keyTime], 'int32');
  const { scale, window = 0 } = attributes as { scale: number; window?: number };
  const numbers = [batch, queryTime, keyTime, heads, kvHeads, size, scale, window, Number(engine.roundsProducts)];
  return { query, key, value, segments, numbers, perQuery: [batch, heads, queryTime] };
}

/**
 * Causal attention; see core's `causalAttention`.
 *
 * Inputs: query float32 [batch, queryTime, heads, size], key and value [batch, keyTime, kvHeads, size], segments int32
 * [batch, keyTime] or none. Attributes: scale, window or none. Results: output, and logSum [batch, heads, queryTime].
 */
const attention: NativeKernel = (engine, inputs, attributes) => {
  const { query, key, value, segments, numbers, perQuery } = readInputs('LlmxAttention', engine, inputs, attributes);
  const output = engine.allocateRounded(query.shape);
  const logSum = engine.allocate(perQuery);
  engine.run('LlmxAttention', [query, key, value, segments, output, logSum], numbers, [0, 1, 2, 4]);
  return [output, logSum];
};

/** Inputs: dy, those of LlmxAttention, output, and logSum as saved0. Results: dQuery, dKey, dValue. */
const attentionGrad: NativeKernel = (engine, inputs, attributes) => {
  const kernel = 'LlmxAttentionGrad';
  const { query, key, value, segments, numbers, perQuery } = readInputs(kernel, engine, inputs, attributes);
  const dy = requireShape(kernel, 'dy', inputs['dy'], query.shape);
  const output = requireShape(kernel, 'output', inputs['output'], query.shape);
  const logSum = requireShape(kernel, 'saved0', inputs['saved0'], perQuery);
  const gradients = [query, key, value].map((input: TensorInfo) => engine.allocate(input.shape));
  engine.run(kernel, [dy, query, key, value, output, logSum, segments, ...gradients], numbers, [1, 2, 3, 4]);
  return gradients;
};

export const attentionKernels: Readonly<Record<string, NativeKernel>> = {
  LlmxAttention: attention,
  LlmxAttentionGrad: attentionGrad,
};
