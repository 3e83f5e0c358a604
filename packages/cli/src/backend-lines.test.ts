import { expect, test } from 'vitest';

import { backendLines, type BackendReport } from './backend-lines.ts';

const native: BackendReport = {
  name: 'native',
  usable: true,
  detail: 'C++ kernels',
  precisions: ['fp32'],
  facts: [
    { name: 'instruction sets', value: 'baseline, avx2, avx512' },
    { name: 'threads', value: '2' },
  ],
  nativeKernels: ['LlmxLinear', 'LlmxMatmul'],
};

test('a backend that tells about itself', () => {
  expect(backendLines(native, false).join('\n')).toMatchInlineSnapshot(`
    "+ native  fp32
        C++ kernels
          instruction sets  baseline, avx2, avx512
          threads           2
          native kernels    2 (--kernels names them)"
  `);
});

test('the names of its native kernels', () => {
  expect(backendLines(native, true).at(-1)).toMatchInlineSnapshot(`"      native kernels    2 LlmxLinear LlmxMatmul"`);
});

test('a backend that tells nothing, and one that cannot be used', () => {
  const { facts: _facts, nativeKernels: _kernels, ...silent } = native;
  expect(backendLines(silent, true)).toEqual(['+ native  fp32', '    C++ kernels']);
  const broken = { ...silent, usable: false, detail: 'It is broken.', hint: 'Mend it.' };
  expect(backendLines(broken, false)).toEqual(['- native  fp32', '    It is broken.', '    Mend it.']);
});
