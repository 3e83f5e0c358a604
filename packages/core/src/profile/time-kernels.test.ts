import { afterEach, beforeAll, expect, test } from 'vitest';

import { tf } from '../tensor/index.ts';
import { useBackend } from '../testing/index.ts';
import { type KernelCall, timeKernels } from './time-kernels.ts';

const calls: KernelCall[] = [];
let clock = 0;
/** Every look at the clock takes a millisecond. */
const start = (): (() => void) =>
  timeKernels(
    'cpu',
    () => ++clock,
    (call) => calls.push(call),
  );
const registered = () => tf.getKernelsForBackend('cpu').toSorted((a, b) => (a.kernelName < b.kernelName ? -1 : 1));
const names = () => calls.map(({ kernel }) => kernel);

const register = (kernelName: string, kernelFunc: () => tf.TensorInfo): void =>
  tf.registerKernel({ kernelName, backendName: 'cpu', kernelFunc });
const run = (kernelName: string): tf.Tensor => tf.engine().runKernel<tf.Tensor>(kernelName, {});

beforeAll(async () => {
  await useBackend('cpu');
  register('TestInner', () => tf.scalar(1));
  register('TestOuter', () => tf.getKernel('TestInner', 'cpu').kernelFunc({ inputs: {}, backend: {} }) as tf.Tensor);
  register('TestBroken', () => {
    throw new TypeError('broken');
  });
});
afterEach(() => {
  calls.length = 0;
  clock = 0;
});

test('tells of every call: kernel, time, inputs, outputs, attributes', () => {
  const restore = start();
  const [a, b] = [tf.ones([2, 3]), tf.ones([4, 3])];
  calls.length = 0;
  clock = 10;
  const product = tf.matMul(a, b, false, true);
  restore();
  expect(product.shape).toEqual([2, 4]);
  expect(calls).toHaveLength(1);
  expect(calls[0]).toMatchObject({ kernel: 'BatchMatMul', start: 11, milliseconds: 1 });
  expect(calls[0]!.inputs['b']!.shape).toEqual([4, 3]);
  expect(calls[0]!.outputs.map(({ shape }) => shape)).toEqual([[2, 4]]);
  expect(calls[0]!.attributes).toMatchObject({ transposeB: true });
  tf.dispose([a, b, product]);
});

test('a kernel that another kernel calls is part of that one', () => {
  const restore = start();
  run('TestOuter');
  run('TestInner');
  restore();
  expect(names()).toEqual(['TestOuter', 'TestInner']);
});

test('a call that fails is not told of, and those after it are', () => {
  const restore = start();
  expect(() => run('TestBroken')).toThrow('broken');
  run('TestInner');
  restore();
  expect(names()).toEqual(['TestInner']);
});

test('the kernels are as before afterwards', () => {
  const before = registered();
  const restore = start();
  expect(registered().some((kernel) => before.includes(kernel))).toBe(false);
  restore();
  const after = registered();
  expect(after).toHaveLength(before.length);
  after.forEach((kernel, index) => expect(kernel).toBe(before[index]));
  run('TestInner');
  expect(calls).toEqual([]);
});

test('a kernel that was replaced meanwhile stays', () => {
  const restore = start();
  tf.unregisterKernel('TestInner', 'cpu');
  register('TestInner', () => tf.scalar(2));
  restore();
  expect(run('TestInner').dataSync()[0]).toBe(2);
});
