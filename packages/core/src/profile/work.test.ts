import { describe, expect, test } from 'vitest';

import { embedding, linear, matmul, tf } from '../tensor/index.ts';
import { useBackend } from '../testing/index.ts';
import { timeKernels } from './time-kernels.ts';
import { bytesMoved, operations } from './work.ts';

const tensor = (shape: number[], dtype: tf.DataType = 'float32'): tf.TensorInfo => ({ shape, dtype, dataId: {} });

const call = (
  kernel: string,
  inputs: Record<string, tf.TensorInfo>,
  outputs: tf.TensorInfo[],
  attributes: Record<string, unknown> = {},
) => ({ kernel, inputs, outputs, attributes });

describe('operations', () => {
  test.for([
    ['BatchMatMul', { transposeA: false, transposeB: false }, [2, 3], [3, 5]],
    ['BatchMatMul', { transposeA: true, transposeB: false }, [3, 2], [3, 5]],
    ['_FusedMatMul', { transposeA: false, transposeB: true }, [2, 3], [5, 3]],
    ['LlmxMatmul', { transposeA: true, transposeB: true }, [3, 2], [5, 3]],
    ['LlmxFusedMatmul', { transposeA: false, transposeB: true, activation: 'gelu' }, [2, 3], [5, 3]],
  ] as const)('%s %o', ([kernel, attributes, a, b], { expect: expects }) => {
    const [left, right] = [tensor([7, ...a]), tensor([7, ...b])];
    // Seven products of 2 x 3 by 3 x 5.
    expects(operations(call(kernel, { a: left, b: right }, [tensor([7, 2, 5])], attributes))).toBe(7 * 2 * 2 * 3 * 5);
  });

  test('LlmxLinear', () => {
    const inputs = { x: tensor([4, 3]), weight: tensor([3, 5]), bias: tensor([5]) };
    expect(operations(call('LlmxLinear', inputs, [tensor([4, 5])]))).toBe(2 * 4 * 3 * 5);
  });

  const attention = (kernel: string, queryTime: number, keyTime: number, attributes = {}): number | undefined => {
    const [query, key] = [tensor([2, queryTime, 6, 8]), tensor([2, keyTime, 3, 8])];
    return operations(call(kernel, { query, key, value: key }, [query], { scale: 1, ...attributes }));
  };
  // A multiply-add per batch, head and element of a head.
  const perPair = 2 * 2 * 6 * 8;

  test('attention counts the pairs of positions that are seen', () => {
    expect(attention('LlmxAttention', 4, 4)).toBe(2 * perPair * (1 + 2 + 3 + 4));
    expect(attention('LlmxAttention', 2, 5)).toBe(2 * perPair * (4 + 5));
    expect(attention('LlmxAttention', 4, 4, { window: 2 })).toBe(2 * perPair * (1 + 2 + 2 + 2));
    expect(attention('LlmxAttentionGrad', 4, 4)).toBe(5 * perPair * (1 + 2 + 3 + 4));
  });

  test('linear cross-entropy', () => {
    const [rows, width, vocab] = [6, 3, 10];
    const product = 2 * rows * width * vocab;
    for (const transposed of [false, true]) {
      const weight = tensor(transposed ? [vocab, width] : [width, vocab]);
      const inputs = { hidden: tensor([rows, width]), weight, labels: tensor([rows], 'int32') };
      const count = (kernel: string, more: Record<string, tf.TensorInfo>): number | undefined =>
        operations(call(kernel, { ...inputs, ...more }, [tensor([rows])], { transposed }));
      expect(count('LlmxLinearCrossEntropy', {})).toBe(product);
      expect(count('LlmxLinearCrossEntropyGrad', { logits: tensor([rows, vocab]) })).toBe(2 * product);
      expect(count('LlmxLinearCrossEntropyGrad', { logits: tensor([0]) })).toBe(3 * product);
    }
  });

  test('other kernels have none', () => {
    expect(operations(call('Multiply', { a: tensor([2]), b: tensor([2]) }, [tensor([2])]))).toBeUndefined();
  });
});

describe('bytes moved', () => {
  test('of inputs and outputs, by type', () => {
    expect(bytesMoved(call('Less', { a: tensor([3, 2]), b: tensor([2], 'int32') }, [tensor([3, 2], 'bool')]))).toBe(
      24 + 8 + 6,
    );
    expect(bytesMoved(call('Fill', {}, [tensor([5])]))).toBe(20);
  });

  test('a tensor that is given twice is read once', () => {
    const x = tensor([10]);
    expect(bytesMoved(call('Multiply', { a: x, b: { ...x } }, [tensor([10])]))).toBe(80);
  });

  test('nothing where data only gets a new shape', () => {
    const x = tensor([2, 3]);
    expect(bytesMoved(call('Reshape', { x }, [{ ...x, shape: [6] }]))).toBe(0);
  });

  test('of all that is read and written where the result takes the place of an input', () => {
    const x = tensor([10]);
    expect(bytesMoved(call('LlmxScale', { x, factor: tensor([]) }, [{ ...x }]))).toBe(40 + 4 + 40);
  });

  test('of a part or of rows, no more than is given out', () => {
    expect(bytesMoved(call('Slice', { x: tensor([1000]) }, [tensor([10])]))).toBe(80);
    const inputs = { weight: tensor([1000, 8]), ids: tensor([5], 'int32') };
    expect(bytesMoved(call('LlmxEmbedding', inputs, [tensor([5, 8])]))).toBe(160 + 160 + 20);
  });
});

test('kernels that are really called have these names, inputs and attributes', async () => {
  await useBackend('wasm');
  const calls: [string, number, number | undefined][] = [];
  const restore = timeKernels('wasm', Date.now, (made) =>
    calls.push([made.kernel, bytesMoved(made), operations(made)]),
  );
  tf.tidy(() => {
    const [x, weight] = [tf.ones([4, 3]), tf.ones([3, 5])];
    const ids = tf.tensor1d([2, 0], 'int32');
    calls.length = 0;
    tf.slice(x, [1, 0], [2, 3]);
    tf.gather(x, ids);
    tf.reshape(x, [12]);
    tf.addN([x, x, tf.reshape(x, [4, 3])]);
    tf.matMul(x, weight);
    matmul(weight, x, { transposeA: true, transposeB: true });
    linear(x, weight, tf.ones([5]));
    embedding(x, ids);
  });
  restore();
  const interesting = calls.filter(([, bytes, count]) => bytes > 0 || count !== undefined);
  expect(interesting.filter(([kernel]) => kernel !== 'Identity' && kernel !== 'Fill')).toEqual([
    ['Slice', 24 + 24, undefined],
    ['GatherV2', 24 + 24 + 8, undefined],
    ['AddN', 48 + 48, undefined],
    ['BatchMatMul', 48 + 60 + 80, 2 * 4 * 3 * 5],
    ['LlmxMatmul', 48 + 60 + 80, 2 * 5 * 3 * 4],
    ['LlmxLinear', 48 + 60 + 20 + 80, 2 * 4 * 3 * 5],
    ['LlmxEmbedding', 24 + 24 + 8, undefined],
  ]);
});
