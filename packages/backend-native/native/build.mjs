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
/** Products in tile registers; fewer sources have a use for these. */
const AMX = 5;
/** What AVX-512 with products of bfloat16 may use. */
const AVX512_BF16 = ['-march=x86-64-v4', '-mavx512bf16', '-mprefer-vector-width=512'];
/** Levels for sources that multiply in bfloat16. Left out where compiler or assembler do not know the instructions, such as `probe`. */
const BFLOAT16_LEVELS = {
  x64: [
    { level: 4, flags: AVX512_BF16, probe: 'vdpbf16ps %zmm0, %zmm1, %zmm2' },
    { level: AMX, flags: [...AVX512_BF16, '-mamx-tile', '-mamx-bf16'], probe: 'tdpbf16ps %tmm0, %tmm1, %tmm2' },
  ],
  arm64: [],
};
/** Forms of level 5 in plain C++ (native/kernels/amx.h), for the machine that compiles them. */
const AMX_MODELS = { exact: '-DLLMX_AMX_MODEL=1', faulty: '-DLLMX_AMX_MODEL=2' };

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

/** Whether compiler and assembler take a level's flags and instructions. */
function knows({ command }, { flags, probe }) {
  const args = [...flags, '-x', 'c++', '-c', '-o', os.devNull, '-'];
  return spawnSync(command, args, { input: `void probe() { asm volatile("${probe}"); }` }).status === 0;
}

/** The levels for sources that multiply in bfloat16. */
function bfloat16Levels(compiler, amxModel) {
  const levels = BFLOAT16_LEVELS[process.arch].filter((level) => knows(compiler, level));
  if (amxModel === undefined) return levels;
  return [...levels.filter(({ level }) => level < AMX), { level: AMX, flags: ['-march=native', AMX_MODELS[amxModel]] }];
}

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
 * @param products names of those among them that multiply in bfloat16, or read and write it
 * @param tiled names of those among them that multiply in tile registers
 * @param sources other sources, compiled once
 * @param output the library's file
 * @param cache folder for objects
 * @param sanitize whether to check addresses and undefined behaviour while running, for tests
 * @param amxModel AMX in plain C++, as the manual has it (`exact`) or not (`faulty`), for tests on any machine
 * @returns whether anything was built
 * @throws Error with the compiler's message
 */
export async function buildLibrary({
  kernels,
  products = [],
  tiled = [],
  sources = [],
  output,
  cache,
  compiler = findCompiler(),
  sanitize = false,
  amxModel,
}) {
  const levels = LEVELS[process.arch];
  if (compiler === undefined) throw new Error('No C++ compiler was found.');
  if (levels === undefined) throw new Error(`The engine is not laid out for ${process.arch} processors.`);
  const extra = sanitize
    ? ['-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer']
    : [];
  const library = path.join(here, 'src', 'library.cpp');
  const more = products.length > 0 ? bfloat16Levels(compiler, amxModel) : [];
  const levelsOf = (source) => [
    ...levels,
    ...more.filter(({ level }) => (level === AMX ? tiled : products).includes(path.basename(source))),
  ];
  const units = [
    ...kernels.flatMap((source) =>
      levelsOf(source).map(({ level, flags }) => [source, [...KERNEL_FLAGS, ...flags, `-DLLMX_ISA=${level}`]]),
    ),
    ...[...sources, library].map((source) => [source, amxModel === undefined ? [] : ['-DLLMX_AMX_MODEL']]),
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
  // The model's build takes most objects from the ordinary one's folder.
  if (amxModel !== undefined) return true;
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

/** Builds llmx's engine, or a form of it for tests, into `build/`; gives the library's path. */
export async function buildEngine({ compiler = findCompiler(), sanitize = false, amxModel } = {}) {
  const folder = path.join(here, 'kernels');
  const kernels = fs
    .readdirSync(folder)
    .flatMap((file) => (file.endsWith('.cpp') ? [path.join(folder, file)] : []))
    .toSorted();
  const build = path.join(here, '..', 'build');
  const form = sanitize ? '-sanitized' : amxModel === undefined ? '' : `-amx-${amxModel}`;
  const output = path.join(build, libraryName(`llmx-native${form}`));
  const sources = [path.join(here, 'src', 'runtime.cpp')];
  const cache = path.join(build, sanitize ? 'objects-sanitized' : 'objects');
  const named = (...names) => names.map((name) => `${name}.cpp`);
  const products = named('matmul', 'cross_entropy', 'attention', 'attention_grad', 'elementwise', 'norm');
  const tiled = named('matmul', 'cross_entropy', 'attention', 'attention_grad');
  const built = await buildLibrary({ kernels, products, tiled, sources, output, cache, compiler, sanitize, amxModel });
  return { output, built };
}
