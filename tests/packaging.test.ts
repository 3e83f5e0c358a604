import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, describe, expect, test, type TestContext } from 'vitest';

import { nativeUnavailable } from '@llmx/backend-native';

import { layOutPlatformPackage } from '../packages/backend-native/native/platform-package.mjs';
import { pnpm } from '../scripts/pnpm.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-packaging-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const PACKAGES = ['core', 'backend-native', 'cli', 'plugin-mtp', 'plugin-schedulefree', 'plugin-xlstm'];
/** Sources of a package's C++, and the scripts that build them. */
function nativeFiles(name: string): string[] {
  const files = fs.readdirSync(path.join(root, 'packages', name, 'native'), { recursive: true, encoding: 'utf8' });
  return files.flatMap((file) => (/\.\w+$/.test(file) ? [`native/${file.replaceAll(path.sep, '/')}`] : []));
}

/** Published files that are neither built from sources nor of every package. */
const OTHERS: Readonly<Record<string, readonly string[]>> = {
  core: ['dist/vendor/tfjs-gradients.d.ts', 'dist/vendor/tfjs-gradients.js'],
  cli: ['bin/llmx.js'],
  'backend-native': nativeFiles('backend-native'),
  'plugin-xlstm': nativeFiles('plugin-xlstm'),
};
const LIMIT = 180_000;
/** Tests and what they share, declarations and example plugins stay in the repository. */
const UNPUBLISHED =
  /\.(test|test-prop|test-d|d)\.ts$|(^|[/\\])examples[/\\]|^testing[/\\](like-cpu|kernel-inputs)\.ts$/;
const UNREACHABLE =
  /\b(ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT)\b/;

interface Outcome {
  readonly ok: boolean;
  readonly stdout: string;
  readonly output: string;
}

/** Checks a command that needs the package registry: skips the test where that cannot be reached. */
function expectFetched(context: TestContext, { ok, output }: Outcome): void {
  const trouble = ok ? undefined : UNREACHABLE.exec(output)?.[0];
  context.skip(trouble !== undefined, `the package registry cannot be reached (${trouble})`);
  expect(ok, output).toBe(true);
}

/** What `pnpm pack` makes of a package: the tarball and the files in it. */
function pack(context: TestContext, name: string): { tarball: string; files: string[] } {
  const outcome = pnpm(['pack', '--json', '--pack-destination', folder], path.join(root, 'packages', name));
  expectFetched(context, outcome);
  const { filename, files } = JSON.parse(outcome.stdout) as { filename: string; files: { path: string }[] };
  return { tarball: filename, files: files.map((file) => file.path) };
}

/** The tarball of the package that brings the C++ engine to this platform. */
async function packEngine(): Promise<string> {
  await layOutPlatformPackage(path.join(folder, 'engine'));
  const { ok, stdout, output } = run('npm', 'pack', '--silent', './engine');
  expect(ok, output).toBe(true);
  return path.join(folder, stdout.trim());
}

/** Runs npm or npx in the folder. */
function run(command: 'npm' | 'npx', ...args: string[]): Outcome {
  const shell = process.platform === 'win32';
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: 'utf8', shell });
  return { ok: status === 0, stdout, output: `${command} ${args.join(' ')}\n${stderr}${stdout}` };
}

/** Runs the installed command, which has to succeed. Returns its standard output. */
function llmx(...args: string[]): string {
  const { ok, stdout, output } = run('npx', '--no-install', 'llmx', ...args);
  expect(ok, output).toBe(true);
  return stdout;
}

const versionOf = (name: string): string =>
  JSON.parse(fs.readFileSync(path.join(root, 'packages', name, 'package.json'), 'utf8')).version;

const CONFIG = `
data: { train: dataset }
model: { architecture: decoder, dModel: 16, contextLength: 16, blocks: [{ block: attention, repeat: 1, heads: 2 }] }
train: { steps: 100, batchSize: 2, evalEvery: 0 }
plugins: ['@llmx/plugin-schedulefree']
optimizer: { name: adamw-schedulefree }
`;

/** Forty documents of about 250 bytes, no two alike. */
function writeTexts(): void {
  fs.mkdirSync(path.join(folder, 'texts'));
  for (let index = 0; index < 40; index++) {
    const text = Array.from({ length: 20 }, (_, word) => `word ${index * word}`).join(', ');
    fs.writeFileSync(path.join(folder, 'texts', `${index}.txt`), `${text}.\n`);
  }
}

describe.each(PACKAGES)('the tarball of packages/%s', (name) => {
  test('holds what runs, and nothing else', { timeout: LIMIT }, (context) => {
    const { files } = pack(context, name);
    const built = files.filter((file) => file.startsWith('dist/') && !file.startsWith('dist/vendor/'));
    const others = files.filter((file) => !file.startsWith('dist/') || file.startsWith('dist/vendor/'));
    expect(others.toSorted()).toEqual(['LICENSE', 'README.md', ...(OTHERS[name] ?? []), 'package.json'].toSorted());
    const sources = fs.readdirSync(path.join(root, 'packages', name, 'src'), { recursive: true, encoding: 'utf8' });
    const modules = sources.filter((file) => file.endsWith('.ts') && !UNPUBLISHED.test(file));
    const outputs = modules.flatMap((file) => ['.js', '.js.map', '.d.ts'].map((end) => file.replace(/\.ts$/, end)));
    expect(built.toSorted()).toEqual(outputs.map((file) => `dist/${file.replaceAll(path.sep, '/')}`).toSorted());
  });
});

test('installed with npm alone, llmx prepares a dataset and trains on it', { timeout: LIMIT }, async (context) => {
  const tarballs = PACKAGES.map((name) => pack(context, name).tarball);
  const flags = ['--no-audit', '--no-fund', '--prefer-offline', '--fetch-retries=1'];
  const engine = nativeUnavailable() === undefined ? [await packEngine()] : [];
  expectFetched(context, run('npm', 'install', ...flags, ...tarballs, ...engine));
  expect(llmx('--version')).toContain(versionOf('cli'));

  writeTexts();
  llmx('data', 'prepare', 'texts', '--out', 'dataset', '--tokenizer', 'bytes', '--val-fraction', '0.2', '--json');
  expect(fs.existsSync(path.join(folder, 'dataset', 'dataset.json'))).toBe(true);

  fs.writeFileSync(path.join(folder, 'tiny.yaml'), CONFIG);
  const output = llmx('train', 'tiny.yaml', '--name', 'tiny', '--set', 'train.steps=3', '--json');
  const result = JSON.parse(output.trimEnd().split('\n').at(-1) ?? '') as {
    backend: string;
    runDir: string;
    steps: number;
  };
  expect(result.steps).toBe(3);
  expect(result.backend).toBe(engine.length > 0 ? 'native' : 'wasm');
  const checkpoint = path.join(folder, 'runs', 'tiny', 'checkpoints', 'step-00000003', 'model.safetensors');
  expect(fs.existsSync(checkpoint)).toBe(true);
  expect(fs.realpathSync(path.resolve(folder, result.runDir))).toBe(fs.realpathSync(path.join(folder, 'runs', 'tiny')));
});
