// Builds every package into its dist folder, as far as it is out of date.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildEngine, findCompiler } from '../packages/backend-native/native/build.mjs';
import { buildKernels } from '../packages/plugin-xlstm/native/build.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const core = path.join(root, 'packages', 'core');

/**
 * TensorFlow.js registers gradients in modules that Node cannot import one by one (extensionless imports inside an
 * ES-module tree without "type": "module"). Engine and registries are global, so a bundle with its own copy of the ops
 * registers into the one engine.
 */
async function bundleGradients() {
  const { version } = createRequire(path.join(core, 'package.json'))('@tensorflow/tfjs-core/package.json');
  const banner = `// The gradient registrations of @tensorflow/tfjs-core ${version}, bundled by scripts/build.mjs.`;
  const file = path.join(core, 'dist', 'vendor', 'tfjs-gradients.js');
  if (fs.existsSync(file) && fs.readFileSync(file, 'utf8').startsWith(`${banner}\n`)) return;
  const { build } = await import('esbuild');
  const result = await build({
    stdin: { contents: "import '@tensorflow/tfjs-core/dist/register_all_gradients.js';", resolveDir: core },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    mainFields: ['module', 'main'],
    legalComments: 'inline',
    banner: { js: banner },
    logLevel: 'error',
  });
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file.replace(/\.js$/, '.d.ts'), 'export {};\n');
  replaceFile(file, result.outputFiles[0].contents);
}

/** Writes a file so that nobody ever sees half of it. */
function replaceFile(file, contents) {
  const temporary = `${file}.${process.pid}`;
  fs.writeFileSync(temporary, contents);
  fs.renameSync(temporary, file);
}

function compile() {
  const compiler = path.join(root, 'node_modules', 'typescript-7', 'lib', 'tsc.js');
  const project = path.join(root, 'tsconfig.build.json');
  return spawnSync(process.execPath, [compiler, '-b', project], { stdio: 'inherit' }).status ?? 1;
}

/** Deletes what was compiled from sources that are gone: a command's old file would still be a command. */
function removeStale(packageFolder) {
  const dist = path.join(packageFolder, 'dist');
  if (!fs.existsSync(dist)) return;
  for (const entry of fs.readdirSync(dist, { recursive: true, encoding: 'utf8' })) {
    const match = /^(?!vendor[/\\])(.*?)\.(d\.ts|js|js\.map)$/.exec(entry);
    if (match && !fs.existsSync(path.join(packageFolder, 'src', `${match[1]}.ts`))) fs.rmSync(path.join(dist, entry));
  }
}

/** The C++ engine and plugins' kernels, where there is a compiler; without it everything works, on slower backends. */
async function compileEngine() {
  const compiler = findCompiler();
  if (compiler === undefined) {
    console.log(
      'No C++ compiler (g++ or clang++) was found: llmx runs on wasm, several times slower than its own engine.',
    );
    return;
  }
  try {
    const started = Date.now();
    const results = [await buildEngine({ compiler }), await buildKernels({ compiler })];
    if (results.some(({ built }) => built))
      console.log(`Built the C++ engine with ${compiler.version} in ${((Date.now() - started) / 1000).toFixed(0)} s.`);
  } catch (error) {
    console.log(`${error.message.trim()}\nThe C++ engine could not be built: llmx runs on wasm, several times slower.`);
  }
}

await bundleGradients();
process.exitCode = compile();
await compileEngine();
for (const name of fs.readdirSync(path.join(root, 'packages'))) removeStale(path.join(root, 'packages', name));
