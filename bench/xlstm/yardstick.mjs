// The authors' package (NX-AI/xlstm) on PyTorch, each run in a process of its own.
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { findTorch, lastLine, output, TUNED_MALLOC } from '../train/sides.mjs';

const program = fileURLToPath(new URL('torch_xlstm.py', import.meta.url));

/**
 * The ways of training with it. Tuned malloc is faster, and takes more memory: only the first has enough on a machine of 24 GiB.
 * Its chunkwise form does not compile in the time of a benchmark.
 */
const VARIANTS = [
  { name: 'parallel, eager, malloc tuned', flags: ['--cell', 'parallel'], env: TUNED_MALLOC },
  { name: 'parallel, compiled', flags: ['--cell', 'parallel', '--compile'], env: {} },
  { name: 'chunkwise, eager', flags: ['--cell', 'chunkwise'], env: {} },
];
const DECODING = { name: 'decoding', flags: ['--cell', 'parallel', '--decode'], env: TUNED_MALLOC };
/** Steps of a training run; the first is not timed. */
const STEPS = 3;

/** Where torch and the package are; undefined, and a line on stderr, where one of them is not. */
export async function findYardstick(signal) {
  const { LLMX_XLSTM_REPO: repository } = process.env;
  if (repository === undefined) {
    console.error("Without the authors' package beside it: LLMX_XLSTM_REPO names a checkout of NX-AI/xlstm.");
    return undefined;
  }
  const torch = await findTorch(signal);
  return torch && { python: torch.python, repository: path.resolve(repository) };
}

/** One run: { milliseconds, peakMiB }; undefined, and a line on stderr, where it fails. */
async function measure({ python, repository }, { slstm }, { name, flags, env }, sizes, signal) {
  const settings = { ...sizes, threads: os.availableParallelism(), repository };
  const args = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const options = { env: { ...process.env, ...env }, signal };
  try {
    return lastLine(await output(python, [program, ...args, ...flags, '--slstm', ...slstm.map(String)], options));
  } catch (cause) {
    signal.throwIfAborted();
    console.error(`NX-AI/xlstm, ${name}: left out, ${cause.message.trimEnd().split('\n').at(-1)}`);
    return undefined;
  }
}

/** Training with the fastest of its variants at a context: { name, tokensPerSecond, peakMiB }; undefined where none runs. */
export async function trainYardstick(yardstick, model, { context, batch, ...sizes }, signal) {
  const results = [];
  for (const variant of process.env.LLMX_BENCH_QUICK === undefined ? VARIANTS : VARIANTS.slice(-1)) {
    const result = await measure(yardstick, model, variant, { ...sizes, context, batch, steps: STEPS }, signal);
    if (result === undefined) continue;
    const tokensPerSecond = (1000 * batch * context) / result.milliseconds;
    console.error(
      `NX-AI/xlstm ${model.name}, context ${context}, ${variant.name}: ${Math.round(tokensPerSecond)} tokens/s`,
    );
    results.push({ name: `NX-AI/xlstm, ${variant.name}`, tokensPerSecond, peakMiB: result.peakMiB });
  }
  return results.toSorted((a, b) => b.tokensPerSecond - a.tokensPerSecond)[0];
}

/** Milliseconds of a token when decoding `tokens` of them; undefined where that fails. */
export async function decodeYardstick(yardstick, model, { tokens, ...sizes }, signal) {
  const result = await measure(
    yardstick,
    model,
    DECODING,
    { ...sizes, context: tokens, batch: 1, steps: tokens },
    signal,
  );
  return result?.milliseconds;
}
