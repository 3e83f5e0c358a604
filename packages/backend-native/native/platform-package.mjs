/**
 * `node native/platform-package.mjs <folder>`: lays out the package that brings the built engine to this platform's users,
 * @llmx/backend-native-<platform>-<arch>. It is an optional dependency of @llmx/backend-native when that is published, so
 * that npm installs the one that fits, and nobody needs a compiler.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildEngine } from './build.mjs';

const here = fileURLToPath(new URL('..', import.meta.url));

/** Writes the package into `folder`, which is made. */
export async function layOutPlatformPackage(folder) {
  const { output } = await buildEngine();
  const { version, license, engines } = JSON.parse(fs.readFileSync(path.join(here, 'package.json'), 'utf8'));
  const platform = `${process.platform}-${process.arch}`;
  const file = path.basename(output);
  const libc =
    process.platform === 'linux'
      ? { libc: [process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl'] }
      : {};
  const manifest = {
    name: `@llmx/backend-native-${platform}`,
    version,
    description: `The C++ engine of @llmx/backend-native, built for ${platform}`,
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
    `# ${manifest.name}\n\n${manifest.description}. Installed by @llmx/backend-native.\n`,
  );
  fs.copyFileSync(path.join(here, 'LICENSE'), path.join(folder, 'LICENSE'));
  fs.copyFileSync(output, path.join(folder, file));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , folder] = process.argv;
  if (folder === undefined) {
    console.error('Usage: node native/platform-package.mjs <folder>');
    process.exit(2);
  }
  await layOutPlatformPackage(path.resolve(folder));
}
