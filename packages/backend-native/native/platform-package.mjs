/**
 * `node native/platform-package.mjs <folder> [<package>]`: lays out the package that brings built C++ to this platform's users,
 * <name>-<platform>-<arch>: the engine of @llmx/backend-native, or the kernels of the plugin whose folder is given. It is an
 * optional dependency of that package when it is published, so that npm installs the one that fits, and nobody needs a compiler.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { buildEngine } from './build.mjs';

const here = fileURLToPath(new URL('..', import.meta.url));

/** Builds a plugin's kernels: its native/build.mjs has buildKernels, which gives the library's file as `output`. */
async function buildPlugin(home) {
  const { buildKernels } = await import(pathToFileURL(path.join(home, 'native', 'build.mjs')).href);
  return buildKernels();
}

/** Writes the package into `folder`, which is made; `home`: the folder of the package whose C++ it brings. */
export async function layOutPlatformPackage(folder, home = here) {
  const { output } = await (path.relative(home, here) === '' ? buildEngine() : buildPlugin(home));
  const { name, version, license, engines } = JSON.parse(fs.readFileSync(path.join(home, 'package.json'), 'utf8'));
  const platform = `${process.platform}-${process.arch}`;
  const file = path.basename(output);
  const libc =
    process.platform === 'linux'
      ? { libc: [process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl'] }
      : {};
  const manifest = {
    name: `${name}-${platform}`,
    version,
    description: `The C++ of ${name}, built for ${platform}`,
    license,
    engines,
    os: [process.platform],
    cpu: [process.arch],
    ...libc,
    files: [file],
    exports: { [`./${file}`]: `./${file}`, './package.json': './package.json' },
  };
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  fs.writeFileSync(
    path.join(folder, 'README.md'),
    `# ${manifest.name}\n\n${manifest.description}. Installed by ${name}.\n`,
  );
  fs.copyFileSync(path.join(home, 'LICENSE'), path.join(folder, 'LICENSE'));
  fs.copyFileSync(output, path.join(folder, file));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , folder, home = here] = process.argv;
  if (folder === undefined) {
    console.error('Usage: node native/platform-package.mjs <folder> [<package>]');
    process.exit(2);
  }
  await layOutPlatformPackage(path.resolve(folder), path.resolve(home));
}
