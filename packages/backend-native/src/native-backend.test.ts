import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { LlmxError, tf } from '@llmx/core';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { buildLibrary, findCompiler } from '../native/build.mjs';
import { addKernels } from './plugin-kernels.ts';
import { nativeBackend, registerNativeBackend } from './component.ts';
import { requireShape } from './check.ts';
import { describeEngine } from './testing/kernels.ts';
import { Library, locateEngine } from './library.ts';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-native-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const failure = (f: () => unknown): string => {
  try {
    f();
  } catch (error) {
    if (LlmxError.is(error)) return `${error.code}: ${error.message}`;
    throw error;
  }
  throw new Error('It did not fail.');
};

describeEngine('the native backend', () => {
  beforeAll(async () => {
    await registerNativeBackend();
    await tf.setBackend('native');
  });

  test('values given and values read are copies: neither changes the tensor', () => {
    const given = Float32Array.of(1, 2, 3);
    const x = tf.tensor1d(given);
    given[0] = 9;
    const read = x.dataSync();
    read[1] = 9;
    expect([...x.dataSync()]).toEqual([1, 2, 3]);
    x.dispose();
    tf.fill([3], 7);
    expect([...read]).toEqual([1, 9, 3]);
  });

  test('memory goes back when the last tensor that shares it is disposed', () => {
    const { memoryPool } = nativeBackend();
    const before = memoryPool.usedBytes;
    const x = tf.zeros([1000]);
    const y = tf.reshape(x, [10, 100]);
    x.dispose();
    expect(memoryPool.usedBytes).toBe(before + 4032);
    y.dispose();
    expect(memoryPool.usedBytes).toBe(before);
  });

  test('a slice does not share memory that is given to others', () => {
    const x = tf.range(0, 1000);
    const part = tf.slice(x, [10], [5]);
    x.dispose();
    const other = tf.fill([1000], -1);
    expect([...part.dataSync()]).toEqual([10, 11, 12, 13, 14]);
    tf.dispose([part, other]);
  });

  test('tensors of other kinds of memory are refused', () => {
    const flags = tf.tensor1d([true, false], 'bool');
    expect(failure(() => nativeBackend().run('LlmxScale', [flags]))).toMatchInlineSnapshot(
      `"LLMX_NATIVE_ARGUMENT: LlmxScale was given bool [2] that does not lie in the native backend's memory."`,
    );
    const x = tf.zeros([4]);
    expect(
      failure(() => nativeBackend().run('LlmxScale', [{ dataId: x.dataId, dtype: x.dtype, shape: [8] }])),
    ).toMatchInlineSnapshot(
      `"LLMX_NATIVE_ARGUMENT: LlmxScale was given a tensor of shape [8] over memory of 4 elements."`,
    );
    expect(failure(() => requireShape('LlmxX', 'weight', x, [2, undefined]))).toMatchInlineSnapshot(
      `"LLMX_NATIVE_ARGUMENT: LlmxX needs weight as float32 [2, any], got float32 [4]."`,
    );
  });

  test('an unknown kernel and too many tensors are refused', () => {
    const x = tf.zeros([1]);
    expect(failure(() => nativeBackend().run('LlmxNothing', [x]))).toMatchInlineSnapshot(
      `"LLMX_NATIVE_FAILED: The engine has no kernel LlmxNothing."`,
    );
    const many = Array.from({ length: 49 }, () => x);
    expect(failure(() => nativeBackend().run('LlmxFill', many))).toMatchInlineSnapshot(
      `"LLMX_NATIVE_ARGUMENT: LlmxFill was given 49 tensors and 0 numbers; the limits are 48 and 256."`,
    );
  });

  test('a tensor beyond all memory is an error with its size, and leaves everything as it was', () => {
    const { memoryPool } = nativeBackend();
    const before = memoryPool.usedBytes;
    expect(failure(() => nativeBackend().allocate([2 ** 46]))).toMatch(
      /^LLMX_OUT_OF_MEMORY: A tensor of 268435456\.0 MiB does not fit into memory beside the [\d.]+ MiB in use\.$/,
    );
    expect(memoryPool.usedBytes).toBe(before);
  });

  test('a second opening of the engine does not take the arguments of the first', async () => {
    const second = await Library.open(locateEngine()!);
    const x = nativeBackend().allocate([3]);
    nativeBackend().run('LlmxFill', [x], [7]);
    expect(second.has('LlmxFill')).toBe(true);
    expect([...nativeBackend().readSync(x.dataId)]).toEqual([7, 7, 7]);
    nativeBackend().disposeData(x.dataId);
  });

  test('a library of another kind is refused', async () => {
    const file = path.join(folder, 'no.so');
    fs.writeFileSync(file, 'no library');
    await expect(Library.open(file)).rejects.toMatchObject({ code: 'LLMX_BACKEND_UNAVAILABLE' });
  });
});

describeEngine('kernels of a plugin', () => {
  const source = (abi: string): string => `#include "llmx/kernel.h"
    ${abi}
    namespace llmx::LLMX_ISA_NAME {
    LLMX_KERNEL(TestDouble) {
      if (call.size(0) != call.size(1)) return fail("x has %lld elements, y has %lld", (long long)call.size(0), (long long)call.size(1));
      const float* x = call.floats(0);
      float* y = call.floats(1);
      parallel_chunks(call.size(0), 1000, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y[i] = 2 * x[i];
      });
      return 0;
    }
    }`;

  async function build(name: string, text: string): Promise<string> {
    const file = path.join(folder, `${name}.cpp`);
    fs.writeFileSync(file, text);
    const output = path.join(folder, `${name}.so`);
    await buildLibrary({ kernels: [file], output, cache: path.join(folder, 'objects') });
    return output;
  }

  beforeAll(() => registerNativeBackend());

  test('run under their own op names', async () => {
    const library = await build('double', source(''));
    addKernels({
      library,
      kernels: {
        TestDouble: (engine, { x }) => {
          const y = engine.allocate(x!.shape);
          engine.run('TestDouble', [x, y]);
          return [y];
        },
      },
    });
    await tf.setBackend('native');
    const x = tf.range(0, 2500);
    const y = tf.engine().runKernel('TestDouble', { x }, {});
    expect([...(y as tf.Tensor).dataSync()]).toEqual([...x.dataSync()].map((value) => 2 * value));
    const short = nativeBackend().allocate([1]);
    expect(failure(() => nativeBackend().run('TestDouble', [x, short]))).toMatchInlineSnapshot(
      `"LLMX_NATIVE_FAILED: The kernel TestDouble failed: x has 2500 elements, y has 1."`,
    );
  });

  test('built against another version of the contract are refused', async () => {
    const header = fs.readFileSync(new URL('../native/include/llmx/kernel.h', import.meta.url), 'utf8');
    const glue = fs.readFileSync(new URL('../native/src/library.cpp', import.meta.url), 'utf8');
    fs.mkdirSync(path.join(folder, 'llmx'));
    fs.writeFileSync(path.join(folder, 'llmx', 'kernel.h'), header.replace('LLMX_KERNEL_ABI 1', 'LLMX_KERNEL_ABI 99'));
    fs.writeFileSync(path.join(folder, 'glue.cpp'), glue);
    const library = path.join(folder, 'other.so');
    execFileSync(findCompiler()!.command, [
      '-std=c++20',
      '-shared',
      '-fPIC',
      `-I${folder}`,
      path.join(folder, 'glue.cpp'),
      '-o',
      library,
    ]);
    const message = failure(() => addKernels({ library, kernels: {} }));
    expect(message.replace(folder, '')).toMatchInlineSnapshot(
      `"LLMX_BACKEND_UNAVAILABLE: The backend "native" cannot be used: /other.so speaks version 99 of the kernel contract, this package version 1."`,
    );
  });

  test('that do not compile fail with the compiler message', async () => {
    await expect(build('wrong', 'this is not C++')).rejects.toThrow(/could not compile .*wrong\.cpp/);
  });
});

describeEngine('the package for this platform', () => {
  test('holds the library under the name that the loader looks for', async () => {
    const script = fileURLToPath(new URL('../native/platform-package.mjs', import.meta.url));
    const target = path.join(folder, 'platform');
    execFileSync(process.execPath, [script, target]);
    const manifest = JSON.parse(fs.readFileSync(path.join(target, 'package.json'), 'utf8')) as {
      name: string;
      files: string[];
    };
    expect(manifest.name).toBe(`@llmx/backend-native-${process.platform}-${process.arch}`);
    const library = await Library.open(path.join(target, manifest.files[0]!));
    expect(library.has('LlmxMatmul')).toBe(true);
  });
});
