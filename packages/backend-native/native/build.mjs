/**
 * Builds libraries of C++ kernels: llmx's own engine, and those of plugins. Needs g++ or clang++ and nothing else. Each
 * source is compiled once per instruction set; objects are kept under the hash of all that decides them.
 */
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const INCLUDE = path.join(here, 'include');

const FLAGS = [
  '-std=c++20',
  '-O3',
  '-fPIC',
  '-fvisibility=hidden',
  '-pthread',
  '-Wall',
  '-Wextra',
  '-Wno-format-security',
];
/** Kernels: no exceptions; square roots without errno; products and sums contracted; loops marked `omp simd` vectorized. */
const KERNEL_FLAGS = [
  '-fno-exceptions',
  '-fno-rtti',
  '-fno-math-errno',
  '-fno-trapping-math',
  '-ffp-contract=fast',
  '-fopenmp-simd',
  '-Wno-psabi', // vectors passed between functions of one library, whose flags are the same
];

/** The levels of kernel.h for a processor, and what each may use. */
const LEVELS = {
  x64: [
    { level: 0, flags: ['-march=x86-64'] },
    { level: 1, flags: ['-march=x86-64'] },
    { level: 2, flags: ['-march=x86-64-v3'] },
    { level: 3, flags: ['-march=x86-64-v4', '-mprefer-vector-width=512'] },
  ],
  arm64: [
    { level: 0, flags: [] },
    { level: 1, flags: [] },
  ],
};
/** Levels for sources that multiply in bfloat16. */
const BFLOAT16_LEVELS = {
  x64: [{ level: 4, flags: ['-march=x86-64-v4', '-mavx512bf16', '-mprefer-vector-width=512'] }],
  arm64: [],
};

/** A C++ compiler: the environment's CXX, else g++ or clang++, whichever works first; `version` is its first line. */
export function findCompiler() {
  for (const command of [process.env.CXX, 'g++', 'clang++'].filter((name) => name !== undefined && name !== '')) {
    const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8' });
    if (status === 0) return { command, version: stdout.split('\n', 1)[0] };
  }
  return undefined;
}

/** File name of a library on this platform. */
export const libraryName = (name) =>
  `${name}${process.platform === 'win32' ? '.dll' : process.platform === 'darwin' ? '.dylib' : '.so'}`;

const run = (command, args) =>
  new Promise((resolve) => {
    execFile(command, args, { maxBuffer: 2 ** 26 }, (error, _stdout, stderr) =>
      resolve({ ok: error === null, stderr }),
    );
  });

/** All headers beside the sources and of the contract: a change of any of them compiles everything again. */
function headers(sources) {
  const folders = new Set([path.join(INCLUDE, 'llmx'), ...sources.map((source) => path.dirname(source))]);
  return [...folders].flatMap((folder) =>
    fs.readdirSync(folder).flatMap((file) => (/\.(h|hpp)$/.test(file) ? [path.join(folder, file)] : [])),
  );
}

function hashOf(parts, files) {
  const hash = createHash('sha256').update(JSON.stringify(parts));
  for (const file of files) hash.update('\0').update(fs.readFileSync(file));
  return hash.digest('hex').slice(0, 32);
}

/** Runs the jobs, as many at a time as there are cores; stops at the first failure. */
async function inParallel(jobs) {
  const queue = [...jobs];
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await job();
  };
  await Promise.all(Array.from({ length: Math.min(queue.length, os.availableParallelism()) }, worker));
}

/**
 * Builds one library, as far as it is out of date.
 *
 * @param kernels sources compiled per instruction set
 * @param products names of those among them that multiply in bfloat16
 * @param sources other sources, compiled once
 * @param output the library's file
 * @param cache folder for objects
 * @param sanitize whether to check addresses and undefined behaviour while running, for tests
 * @returns whether anything was built
 * @throws Error with the compiler's message
 */
export async function buildLibrary({
  kernels,
  products = [],
  sources = [],
  output,
  cache,
  compiler = findCompiler(),
  sanitize = false,
}) {
  const levels = LEVELS[process.arch];
  if (compiler === undefined) throw new Error('No C++ compiler was found.');
  if (levels === undefined) throw new Error(`The engine is not laid out for ${process.arch} processors.`);
  const extra = sanitize
    ? ['-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer']
    : [];
  const library = path.join(here, 'src', 'library.cpp');
  const units = [
    ...kernels.flatMap((source) =>
      [...levels, ...(products.includes(path.basename(source)) ? BFLOAT16_LEVELS[process.arch] : [])].map(
        ({ level, flags }) => [source, [...KERNEL_FLAGS, ...flags, `-DLLMX_ISA=${level}`]],
      ),
    ),
    ...[...sources, library].map((source) => [source, []]),
  ];
  const shared = headers([...kernels, ...sources]);
  fs.mkdirSync(cache, { recursive: true });
  const objects = units.map(([source, flags]) => {
    const all = [...FLAGS, ...flags, ...extra, `-I${INCLUDE}`];
    const key = hashOf([compiler.version, process.arch, all, path.basename(source)], [source, ...shared]);
    return { source, flags: all, file: path.join(cache, `${path.basename(source, '.cpp')}-${key}.o`) };
  });
  const stamp = `${compiler.version} ${createHash('sha256')
    .update(JSON.stringify(objects.map(({ file }) => path.basename(file))))
    .digest('hex')}\n`;
  const stampFile = `${output}.stamp`;
  if (fs.existsSync(output) && fs.existsSync(stampFile) && fs.readFileSync(stampFile, 'utf8') === stamp) return false;

  await inParallel(objects.filter(({ file }) => !fs.existsSync(file)).map((object) => () => compile(compiler, object)));
  await link(compiler, objects, output, extra);
  fs.writeFileSync(stampFile, stamp);
  const current = new Set(objects.map(({ file }) => path.basename(file)));
  for (const file of fs.readdirSync(cache))
    if (file.endsWith('.o') && !current.has(file)) fs.rmSync(path.join(cache, file), { force: true });
  return true;
}

async function compile(compiler, { source, flags, file }) {
  const temporary = `${file}.${process.pid}`;
  const { ok, stderr } = await run(compiler.command, [...flags, '-c', source, '-o', temporary]);
  if (!ok) throw new Error(`${compiler.command} could not compile ${source}:\n${stderr}`);
  if (stderr !== '') process.stderr.write(stderr);
  fs.renameSync(temporary, file);
}

async function link(compiler, objects, output, extra) {
  fs.mkdirSync(path.dirname(output), { recursive: true });
  const temporary = `${output}.${process.pid}`;
  const fixed =
    process.platform === 'linux' && extra.length === 0
      ? ['-static-libstdc++', '-static-libgcc', '-Wl,-z,noexecstack']
      : [];
  const files = objects.map(({ file }) => file);
  const { ok, stderr } = await run(compiler.command, [
    '-shared',
    '-pthread',
    ...extra,
    ...fixed,
    ...files,
    '-o',
    temporary,
  ]);
  if (!ok) throw new Error(`${compiler.command} could not link ${output}:\n${stderr}`);
  // A library that is in use stays what it is: the new file takes its name, not its content.
  fs.renameSync(temporary, output);
}

/** Builds llmx's engine into `build/`; gives the library's path. */
export async function buildEngine({ compiler = findCompiler(), sanitize = false } = {}) {
  const folder = path.join(here, 'kernels');
  const kernels = fs
    .readdirSync(folder)
    .flatMap((file) => (file.endsWith('.cpp') ? [path.join(folder, file)] : []))
    .toSorted();
  const build = path.join(here, '..', 'build');
  const output = path.join(build, libraryName(sanitize ? 'llmx-native-sanitized' : 'llmx-native'));
  const sources = [path.join(here, 'src', 'runtime.cpp')];
  const cache = path.join(build, sanitize ? 'objects-sanitized' : 'objects');
  const products = ['matmul', 'cross_entropy', 'attention', 'attention_grad', 'elementwise', 'norm'].map(
    (name) => `${name}.cpp`,
  );
  const built = await buildLibrary({ kernels, products, sources, output, cache, compiler, sanitize });
  return { output, built };
}
