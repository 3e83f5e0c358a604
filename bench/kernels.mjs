// Matrix products on the wasm backend: llmx's kernel beside the backend's own, and the other kernels beside one plain product.
import { builtin, chooseBackend, gelu, layerNorm, matmul, Registry, tf } from '../packages/core/dist/index.js';

export const name = 'kernels';

const RUNS = 7;

/** Median milliseconds of a call that returns a tensor. */
function milliseconds(f) {
  const times = Array.from({ length: RUNS + 1 }, () => {
    const start = performance.now();
    f().dispose();
    return performance.now() - start;
  }).slice(1);
  return times.toSorted((a, b) => a - b)[Math.floor(RUNS / 2)];
}

export async function run() {
  const registry = new Registry([builtin]);
  await chooseBackend({ registry, selected: { name: 'wasm' }, precision: 'fp32', resolveFrom: [] });
  const random = (...shape) => tf.randomNormal(shape);
  const products = [
    ['[4096, 128] [128, 512]', random(4096, 128), random(128, 512), {}],
    ['[4096, 128]^T [4096, 512]', random(4096, 128), random(4096, 512), { transposeA: true }],
    ['[4096, 512] [128, 512]^T', random(4096, 512), random(128, 512), { transposeB: true }],
    ['64 x [256, 32] [256, 32]^T', random(64, 256, 32), random(64, 256, 32), { transposeB: true }],
    ['64 x [256, 256] [256, 32]', random(64, 256, 256), random(64, 256, 32), {}],
  ];
  const rows = products.map(([title, a, b, options]) => {
    const ours = milliseconds(() => matmul(a, b, options));
    const theirs = milliseconds(() => tf.matMul(a, b, options.transposeA, options.transposeB));
    return { name: title, value: ours, unit: 'ms', ratio: ours / theirs, yardstick: "the backend's own kernel" };
  });
  const plain = rows[0].value;
  const [x, wide, weight] = [random(4096, 128), random(4096, 512), random(128)];
  const others = [
    ['gelu of [4096, 512]', () => gelu(wide)],
    ['layer norm of [4096, 128]', () => layerNorm(x, weight, weight)],
  ].map(([title, f]) => {
    const value = milliseconds(f);
    return { name: title, value, unit: 'ms', ratio: value / plain, yardstick: 'the first product' };
  });
  return [...rows, ...others];
}
