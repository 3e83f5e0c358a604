// Writes packages/core/src/testing/kernel-lists.ts: the kernels that TensorFlow.js backends register which cannot be
// loaded everywhere. Run it when the pinned version of TensorFlow.js changes: node scripts/kernel-lists.mjs
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

const target = fileURLToPath(new URL('../packages/core/src/testing/kernel-lists.ts', import.meta.url));
const tf = createRequire(new URL('../packages/core/package.json', import.meta.url))('@tensorflow/tfjs-core');
const PACKAGES = { 'tfjs-node-gpu': '@tensorflow/tfjs-node-gpu', webgpu: '@tensorflow/tfjs-backend-webgpu' };

/** Kernel names in the kernel modules of a package: `kernelName:` and a constant of tfjs-core or a string. */
function kernelsOf(packageName) {
  const folder = mkdtempSync(`${tmpdir()}/llmx-kernels-`);
  try {
    const spec = `${packageName}@${tf.version_core}`;
    execFileSync('npm', ['pack', spec, '--silent', '--pack-destination', folder], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    execFileSync('tar', ['xzf', `${folder}/${readdirSync(folder)[0]}`, '-C', folder]);
    const kernels = `${folder}/package/dist/kernels`;
    const names = readdirSync(kernels)
      .filter((file) => file.endsWith('.js') && !file.endsWith('_test.js'))
      .flatMap((file) => [
        ...readFileSync(`${kernels}/${file}`, 'utf8').matchAll(/kernelName: (?:'(\w+)'|(?:tfjs_1\.)?(\w+))/gu),
      ])
      .map(([, name, constant]) => name ?? tf[constant])
      .filter((kernel) => typeof kernel === 'string');
    return [...new Set(names)].toSorted((a, b) => (a < b ? -1 : 1));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const lists = Object.entries(PACKAGES).map(([backend, name]) => {
  const kernels = kernelsOf(name);
  if (kernels.length < 100) throw new Error(`Found only ${kernels.length} kernels in ${name}.`);
  return `  // ${name}@${tf.version_core}\n  '${backend}': [\n${kernels.map((kernel) => `    '${kernel}',\n`).join('')}  ],\n`;
});
const head =
  '/** Kernels that TensorFlow.js backends register which cannot be loaded everywhere; written by scripts/kernel-lists.mjs. */\n';
writeFileSync(
  target,
  `${head}export const KERNEL_LISTS: Readonly<Record<string, readonly string[]>> = {\n${lists.join('')}};\n`,
);
