/** Builds this plugin's C++ kernels for the native backend into `build/`. Needs that backend's package and a compiler. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));

/** Builds the library as far as it is out of date; its path, and whether anything was built. */
export async function buildKernels(options = {}) {
  const { buildLibrary, libraryName } = await import('@llmx/backend-native/build');
  const build = path.join(here, '..', 'build');
  const kernels = [
    'gated_read.cpp',
    'headwise.cpp',
    'mlstm_chunkwise.cpp',
    'mlstm_chunkwise_grad.cpp',
    'slstm_scan.cpp',
  ];
  const output = path.join(build, libraryName('xlstm-kernels'));
  const built = await buildLibrary({
    ...options,
    kernels: kernels.map((file) => path.join(here, file)),
    output,
    cache: path.join(build, 'objects'),
  });
  return { output, built };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { output } = await buildKernels();
  console.log(output);
}
