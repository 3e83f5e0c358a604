// Rates of the C++ engine's kernels, hot (the same tensors again and again) and cold (tensors that no cache holds), beside
// the machine's measured peaks in the same run. LLMX_BENCH_PRECISION: of products of matrices, fp32 (default) or bf16.
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import {
  addKernels,
  nativeBackend,
  nativeUnavailable,
  registerNativeBackend,
} from '../packages/backend-native/dist/index.js';
import { buildLibrary, findCompiler, libraryName } from '../packages/backend-native/native/build.mjs';
import { builtin, chooseBackend, Registry, tf } from '../packages/core/dist/index.js';
import nativePlugin from '../packages/backend-native/dist/index.js';

export const name = 'native';

// More than the last-level cache of any processor we know of per core.
const COLD_BYTES = 2 ** 28;
const MOST_SETS = 24;
const ROUNDS = 7;
const OVERHEAD_CALLS = 20_000;

const random = (...shape) => tf.randomUniform(shape, -1, 1, 'float32', 1);
const ids = (count, below) =>
  tf.tensor1d(
    Array.from({ length: count }, (_, index) => (index * 7919) % below),
    'int32',
  );
const sizeOf = (tensors) => Object.values(tensors).reduce((sum, { size }) => sum + 4 * size, 0);
const dispatch = (kernel, inputs, attributes = {}) => tf.engine().runKernel(kernel, inputs, attributes);

/** Best seconds per call over rounds: with one set of inputs, or with as many as no cache holds. */
function seconds(f, makeInputs, isCold) {
  const first = makeInputs();
  const count = isCold ? Math.max(2, Math.min(MOST_SETS, Math.ceil(COLD_BYTES / sizeOf(first)))) : 1;
  const sets = [first, ...Array.from({ length: count - 1 }, makeInputs)];
  const calls = Math.max(count, isCold ? 0 : 5);
  tf.tidy(() => void f(first));
  const times = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    for (let call = 0; call < calls; call++) tf.tidy(() => void f(sets[call % count]));
    return (performance.now() - start) / calls / 1000;
  });
  tf.dispose(sets);
  return times.toSorted((a, b) => a - b)[Math.floor(ROUNDS / 2)];
}

/** A product [m, k] [k, n], as its operands are stored. */
const matmul = (m, n, k, attributes = {}) => ({
  name: `matmul ${m} x ${n} x ${k}${attributes.transposeA ? ' T-' : ''}${attributes.transposeB ? ' -T' : ''}${attributes.activation ? ' + bias, gelu' : ''}`,
  flops: 2 * m * n * k,
  inputs: () => ({
    a: attributes.transposeA ? random(k, m) : random(m, k),
    b: attributes.transposeB ? random(n, k) : random(k, n),
    ...(attributes.activation && { bias: random(n) }),
  }),
  run: (inputs) => dispatch('LlmxFusedMatmul', inputs, { transposeA: false, transposeB: false, ...attributes }),
});

/** Values that products alone read: in bfloat16 where these round to it. */
const rounded = (...shape) =>
  tf.tidy(() => {
    const inputs = { x: random(...shape), weight: tf.ones([shape.at(-1)]) };
    return dispatch('LlmxNorm', inputs, { epsilon: 1e-5, center: true, rounded: true })[0];
  });

/** A block's products in training, [rows, width] with a hidden layer four times as wide, operands and results as they lie in memory then. */
function training(label, rows, width) {
  const wide = 4 * width;
  const one = (title, m, n, k, inputs, attributes) => ({
    name: `${label}, ${title} ${m} x ${n} x ${k}`,
    flops: 2 * m * n * k,
    inputs,
    run: (given) => dispatch('LlmxFusedMatmul', given, { transposeA: false, transposeB: false, ...attributes }),
  });
  const forward = (n, k, more) => () => ({ a: rounded(rows, k), b: random(k, n), bias: random(n), ...more?.() });
  const residual = () => ({ residual: random(rows, width) });
  const gelu = { activation: 'gelu', second: true, rounded: true };
  const backward = { activation: 'gelu-backward', second: true, rounded: true, transposeB: true };
  return [
    one('query', rows, width, width, forward(width, width), { rounded: true }),
    one('output', rows, width, width, forward(width, width, residual), {}),
    one('up + gelu', rows, wide, width, forward(wide, width), gelu),
    one('down', rows, width, wide, forward(width, wide, residual), {}),
    one(
      'd down + gelu',
      rows,
      wide,
      width,
      () => ({ a: random(rows, width), b: random(wide, width), factor: rounded(rows, wide) }),
      backward,
    ),
    one('d up', rows, width, wide, () => ({ a: rounded(rows, wide), b: random(width, wide) }), { transposeB: true }),
    one('d query', rows, width, width, () => ({ a: random(rows, width), b: random(width, width) }), {
      transposeB: true,
    }),
    one('weight of query', width, width, rows, () => ({ a: rounded(rows, width), b: random(rows, width) }), {
      transposeA: true,
    }),
    one('weight of up', width, wide, rows, () => ({ a: rounded(rows, width), b: rounded(rows, wide) }), {
      transposeA: true,
    }),
    one('weight of down', wide, width, rows, () => ({ a: rounded(rows, wide), b: random(rows, width) }), {
      transposeA: true,
    }),
  ];
}

/** Causal attention of a batch; half of the scores count. */
function attention(batch, heads, time, size) {
  const products = (count) => (count * 2 * batch * heads * time * time * size) / 2;
  const inputs = () => ({
    query: random(batch, time, heads, size),
    key: random(batch, time, heads, size),
    value: random(batch, time, heads, size),
  });
  const scale = 1 / Math.sqrt(size);
  return [
    {
      name: `attention ${batch} x ${heads} x ${time} x ${size}`,
      flops: products(2),
      inputs,
      run: (given) => dispatch('LlmxAttention', given, { scale }),
    },
    {
      name: `attention backward ${batch} x ${heads} x ${time} x ${size}`,
      flops: products(5),
      inputs() {
        const given = inputs();
        const [output, saved0] = dispatch('LlmxAttention', given, { scale });
        return { ...given, output, saved0, dy: random(batch, time, heads, size) };
      },
      run: (given) => dispatch('LlmxAttentionGrad', given, { scale }),
    },
  ];
}

const [ROWS, WIDTH] = [3072, 384];

/** A product of what lies in memory as products take it: with bfloat16 nothing is converted. */
const ofRounded = (m, n, k) => ({
  ...matmul(m, n, k),
  name: `matmul ${m} x ${n} x ${k}, operands as products take them`,
  inputs: () => ({ a: rounded(m, k), b: rounded(k, n) }),
});

const CASES = [
  matmul(1024, 1024, 1024),
  ofRounded(1024, 1024, 1024),
  matmul(ROWS, 4 * WIDTH, WIDTH),
  matmul(ROWS, 4 * WIDTH, WIDTH, { activation: 'gelu', derivative: true }),
  matmul(ROWS, WIDTH, 4 * WIDTH),
  matmul(ROWS, WIDTH, 4 * WIDTH, { transposeB: true }),
  matmul(WIDTH, 4 * WIDTH, ROWS, { transposeA: true }),
  matmul(512, 3072, 768),
  matmul(768, 3072, 512, { transposeA: true }),
  matmul(4, 1024, 256),
  matmul(8, 256, 1024),
  matmul(8, 3072, 768),
  ...training('A', ROWS, WIDTH),
  ...training('B', 512, 768),
  ...attention(12, 6, 256, 64),
  ...attention(1, 8, 4096, 64),
  {
    name: 'norm',
    bytes: 8 * ROWS * WIDTH,
    inputs: () => ({ x: random(ROWS, WIDTH), weight: random(WIDTH), bias: random(WIDTH) }),
    run: (inputs) => dispatch('LlmxNorm', inputs, { epsilon: 1e-5, center: true }),
  },
  {
    name: 'norm backward',
    bytes: 12 * ROWS * WIDTH,
    inputs() {
      const x = random(ROWS, WIDTH);
      const weight = random(WIDTH);
      const [y, mean, scale] = dispatch('LlmxNorm', { x, weight }, { epsilon: 1e-5, center: true });
      y.dispose();
      return { dy: random(ROWS, WIDTH), x, weight, mean, scale };
    },
    run: (inputs) => dispatch('LlmxNormGrad', inputs, { center: true }),
  },
  {
    name: 'column sums',
    bytes: 4 * ROWS * 4 * WIDTH,
    inputs: () => ({ x: random(ROWS, 4 * WIDTH) }),
    run: (inputs) => dispatch('LlmxColumnSums', inputs),
  },
  {
    name: 'sum of squares',
    bytes: 4 * 2 ** 24,
    inputs: () => ({ x: random(2 ** 24) }),
    run: (inputs) => dispatch('LlmxSumOfSquares', inputs),
  },
  {
    name: 'softmax',
    bytes: 8 * 4096 * 512,
    inputs: () => ({ logits: random(4096, 512) }),
    run: (inputs) => dispatch('Softmax', inputs, { dim: -1 }),
  },
  {
    name: 'add',
    bytes: 12 * 2 ** 22,
    inputs: () => ({ a: random(2 ** 22), b: random(2 ** 22) }),
    run: (inputs) => dispatch('Add', inputs),
  },
  {
    name: 'transpose',
    bytes: 8 * 2 ** 22,
    inputs: () => ({ x: random(2048, 2048) }),
    run: (inputs) => dispatch('Transpose', inputs, { perm: [1, 0] }),
  },
  {
    name: 'embedding',
    bytes: 8 * ROWS * WIDTH,
    inputs: () => ({ weight: random(257, WIDTH), ids: ids(ROWS, 257) }),
    run: (inputs) => dispatch('LlmxEmbedding', inputs),
  },
  {
    name: 'embedding backward',
    bytes: 12 * ROWS * WIDTH,
    inputs: () => ({ dy: random(ROWS, WIDTH), ids: ids(ROWS, 257) }),
    run: (inputs) => dispatch('LlmxEmbeddingGrad', inputs, { rows: 257 }),
  },
  {
    name: 'linear + cross-entropy 512 x 50257 x 768, both ways',
    flops: 6 * 512 * 50257 * 768,
    inputs: () => ({ hidden: random(512, 768), weight: random(50257, 768), labels: ids(512, 50257), dy: random(512) }),
    run({ dy, ...inputs }) {
      const [loss, logSum, logits] = dispatch('LlmxLinearCrossEntropy', inputs, { transposed: true });
      loss.dispose();
      return dispatch('LlmxLinearCrossEntropyGrad', { dy, ...inputs, logSum, logits }, { transposed: true });
    },
  },
];

/** Microseconds of the engine's smallest call, of an op around it, and of memory that is taken and given back. */
function overheads() {
  const { library, memoryPool } = nativeBackend();
  const buffer = new ArrayBuffer(64);
  const one = { address: library.addressOf(buffer), size: 1, dtype: 'float32', shape: [1] };
  const [a, b] = [random(1), random(1)];
  const cases = [
    ['a call of the engine, one element', () => library.run('LlmxFill', [one], [0])],
    ['an op through tfjs, one element', () => tf.add(a, b).dispose()],
    ['64 KiB taken and released', () => memoryPool.release(memoryPool.allocate(2 ** 16))],
  ];
  const microseconds = (f) => {
    const times = Array.from({ length: ROUNDS }, () => {
      const start = performance.now();
      for (let call = 0; call < OVERHEAD_CALLS; call++) f();
      return ((performance.now() - start) * 1000) / OVERHEAD_CALLS;
    });
    return times.toSorted((x, y) => x - y)[Math.floor(ROUNDS / 2)];
  };
  const rows = cases.map(([title, f]) => ({ name: title, value: microseconds(f), unit: 'us' }));
  tf.dispose([a, b]);
  return rows;
}

/** AdamW as an elementwise program of the built-in optimizer against a loop written by hand, 10 M parameters. */
async function adamw(registry) {
  const size = 10_000_000;
  const optimizer = registry.create('optimizer', { name: 'adamw' }, {});
  const grads = { w: random(size) };
  let params = { w: random(size) };
  let state = optimizer.init(params);
  const loss = tf.scalar(1);
  let step = 0;
  const program = () => {
    const next = tf.tidy(() => optimizer.update({ grads, params, state, lr: 1e-3, step: ++step, loss }));
    tf.dispose([params, state]);
    ({ params, state } = next);
  };
  const tensors = [random(size), grads.w, random(size), tf.abs(random(size))];
  const byHand = () => void dispatch('BenchAdamw', Object.fromEntries(tensors.map((tensor, index) => [index, tensor])));
  const times = { program: [], byHand: [] };
  for (let round = 0; round < 15; round++)
    for (const [key, f] of [
      ['program', program],
      ['byHand', byHand],
    ]) {
      const start = performance.now();
      f();
      times[key].push((performance.now() - start) / 1000);
    }
  const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
  const rate = (value) => (28 * size) / median(value) / 1e9;
  return [
    { name: 'AdamW 10 M, written by hand', value: rate(times.byHand), unit: 'GB/s' },
    {
      name: 'AdamW 10 M, elementwise program',
      value: rate(times.program),
      unit: 'GB/s',
      ratio: rate(times.program) / rate(times.byHand),
      yardstick: 'by hand',
    },
  ];
}

/** What kernels are held against, as a plugin would bring it. */
async function loadYardsticks() {
  const folder = path.join(os.tmpdir(), 'llmx-bench-native');
  const output = path.join(folder, libraryName('bench'));
  await buildLibrary({
    kernels: ['adamw.cpp', 'products.cpp'].map((file) => fileURLToPath(new URL(`native/${file}`, import.meta.url))),
    products: ['products.cpp'],
    tiled: ['products.cpp'],
    output,
    cache: path.join(folder, 'objects'),
  });
  const BenchAdamw = (engine, inputs) => {
    engine.run(
      'BenchAdamw',
      [0, 1, 2, 3].map((index) => inputs[index]),
      [1e-3, 0.9, 0.95, 1e-8, 0.1, 0.5, 0.5],
    );
    return [engine.share(inputs[0])];
  };
  const BenchProducts = (engine, _inputs, { tiled, iterations }) => {
    const operations = engine.allocate([1]);
    engine.run('BenchProducts', [operations], [Number(tiled), iterations]);
    return [operations];
  };
  addKernels({ library: output, kernels: { BenchAdamw, BenchProducts } });
}

/** GFLOP/s of products of bfloat16 in registers, or in tiles from the caches, on all threads: the best of some rounds. */
function productRate(tiled, iterations) {
  const all = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    const [operations] = tf.tidy(() => dispatch('BenchProducts', {}, { tiled, iterations }).dataSync());
    return operations / (performance.now() - start) / 1e6;
  });
  return Math.max(...all);
}

/** The peaks of bfloat16; products are held against the first. */
const productPeaks = () => [
  { name: 'peak, products of bfloat16 in registers', value: productRate(false, 2_000_000), unit: 'GFLOP/s' },
  { name: 'tiles of bfloat16 from the caches', value: productRate(true, 20_000), unit: 'GFLOP/s' },
];

/** All kernels' rates. */
async function rates() {
  const missing = nativeUnavailable();
  if (missing !== undefined) {
    console.log(`native: left out, since ${missing}.`);
    return [];
  }
  const precision = process.env.LLMX_BENCH_PRECISION ?? 'fp32';
  console.error(await registerNativeBackend({ precision }));
  const hasCompiler = findCompiler() !== undefined;
  if (hasCompiler) await loadYardsticks();
  const registry = new Registry([builtin, nativePlugin]);
  const { built } = await chooseBackend({ registry, selected: { name: 'native' }, precision, resolveFrom: [] });
  const { gflops, gigabytesPerSecond } = built.peaks();
  const ofProducts = hasCompiler && precision === 'bf16' ? productPeaks() : [];
  const rows = [
    { name: 'peak, multiply-adds', value: gflops, unit: 'GFLOP/s' },
    { name: 'peak, memory', value: gigabytesPerSecond, unit: 'GB/s' },
    ...ofProducts,
    ...overheads(),
  ];
  for (const { name: title, flops, bytes, inputs, run: call } of CASES)
    for (const isCold of [false, true]) {
      const value = (flops ?? bytes) / seconds(call, inputs, isCold) / 1e9;
      const [unit, peak, yardstick] = flops
        ? ['GFLOP/s', ofProducts[0]?.value ?? gflops, 'peak']
        : ['GB/s', gigabytesPerSecond, 'memory'];
      rows.push({ name: `${title}, ${isCold ? 'cold' : 'hot'}`, value, unit, ratio: value / peak, yardstick });
    }
  if (hasCompiler) rows.push(...(await adamw(registry)));
  return rows;
}

export { rates as run };
