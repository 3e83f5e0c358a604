import type { MachinePeaks } from '@llmx/core';

import type { NativeBackend } from './native-backend.ts';

// Long enough to outlast a thread's waking up (about 50 microseconds), short enough for doctor.
const FMA_ITERATIONS = 2_000_000;
// 64 MiB each: beyond any last-level cache share.
const STREAM_ELEMENTS = 2 ** 24;
const ROUNDS = 5;

/** Smallest time of some rounds, in seconds: the machine undisturbed. */
function best(f: () => void): number {
  f();
  const times = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    f();
    return performance.now() - start;
  });
  return Math.min(...times) / 1000;
}

/** What the machine can do at best with the engine's threads and instruction set. */
export function measurePeaks(backend: NativeBackend): MachinePeaks {
  const result = backend.allocate([1]);
  const streams = [0, 1].map(() => backend.allocate([STREAM_ELEMENTS]));
  try {
    // Until it is written, fresh memory is one page of zeros that a cache holds.
    for (const stream of streams) backend.run('LlmxFill', [stream], [1]);
    const seconds = best(() => backend.run('LlmxPeak', [result], [FMA_ITERATIONS]));
    const operations = (backend.data.get(result.dataId).values as Float32Array)[0]!;
    const streaming = best(() => backend.run('LlmxStream', streams, [0.5]));
    return {
      gflops: operations / seconds / 1e9,
      gigabytesPerSecond: (3 * 4 * STREAM_ELEMENTS) / streaming / 1e9,
      threads: backend.library.threads,
    };
  } finally {
    for (const { dataId } of [result, ...streams]) backend.disposeData(dataId);
  }
}
