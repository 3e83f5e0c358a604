import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { locateLibrary } from '@llmx/backend-native';
import { tf } from '@llmx/core';
import { useBackend } from '@llmx/core/testing';
import { describeKernels } from '@llmx/backend-native/testing';
import { describe, expect, test } from 'vitest';

import { kernelLibrary, nativeKernels } from './native-kernel-calls.ts';
import { loadNativeKernels } from './native-kernels.ts';

describeKernels(kernelLibrary(), 'native kernels, once loaded', () => {
  test('come to users without a compiler in a package of their own', async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-xlstm-'));
    const name = `@llmx/plugin-xlstm-${process.platform}-${process.arch}`;
    try {
      const script = createRequire(import.meta.url).resolve('@llmx/backend-native/package.json');
      const target = path.join(folder, 'node_modules', name);
      const plugin = fileURLToPath(new URL('..', import.meta.url));
      execFileSync(process.execPath, [path.join(script, '..', 'native', 'platform-package.mjs'), target, plugin]);
      const home = pathToFileURL(`${folder}/`);
      const found = locateLibrary({ home, name: '@llmx/plugin-xlstm', library: 'xlstm-kernels' });
      expect(found && path.dirname(found)).toBe(fs.realpathSync(target));
      expect(fs.readFileSync(found!).equals(fs.readFileSync(kernelLibrary()!))).toBe(true);
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });

  test('are those of the active backend', async () => {
    await useBackend('native');
    expect(await loadNativeKernels()).toBe(true);
    for (const name of Object.keys(nativeKernels)) expect(tf.getKernel(name, 'native'), name).toBeDefined();
  });
});

describe('native kernels', () => {
  test('refuse shapes that do not belong together', () => {
    const info = (...shape: number[]) => ({ dataId: {}, shape, dtype: 'float32' as const });
    const run = (kernel: string, inputs: Parameters<(typeof nativeKernels)[string]>[1]) => () =>
      nativeKernels[kernel]!({} as never, inputs, { chunk: 64, epsilon: 1e-6, training: false });
    const query = info(2, 5, 4, 8);
    const gate = info(2, 5, 4);
    expect(
      run('XlstmMlstmChunkwise', { query, key: query, value: query, inputGate: gate, forgetGate: info(2, 4, 5) }),
    ).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: XlstmMlstmChunkwise needs forgetGate as float32 [2, 5, 4], got float32 [2, 4, 5].]`,
    );
    const whole = { query, key: query, value: query, inputGate: gate, forgetGate: gate };
    expect(run('XlstmMlstmChunkwise', { ...whole, memory: info(2, 4, 8, 8) })).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: XlstmMlstmChunkwise needs normalizer as float32 [2, 4, 8], got nothing.]`,
    );
    const row = info(2, 5, 12);
    const gates = { inputGate: row, forgetGate: row, cellInput: row, outputGate: row };
    expect(
      run('XlstmSlstmScan', { ...gates, recurrent: info(2, 4, 16), bias: info(48) }),
    ).toThrowErrorMatchingInlineSnapshot(
      `[LlmxError: XlstmSlstmScan needs recurrent as float32 [2, 6, 16], got float32 [2, 4, 16].]`,
    );
  });

  test('are left alone on other backends', async () => {
    await useBackend('cpu');
    expect(await loadNativeKernels()).toBe(false);
  });
});
