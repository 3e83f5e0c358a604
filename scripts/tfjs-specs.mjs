// Runs the specs that tfjs-core publishes on one backend: node scripts/tfjs-specs.mjs <cpu | native>. Standard error names
// each spec as it starts, then tells what failed. The last line of standard output is one JSON object: `{ "passed",
// "pending", "failures": [{ "name", "messages" }] }`, or `{ "unavailable": reason }`. The exit status is 1 if anything
// failed. The specs change flags, registries and globals at will, so nothing else can run in this process.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import jasmineCore from 'jasmine-core';

const core = fileURLToPath(new URL('../packages/core', import.meta.url));
const require = createRequire(import.meta.url);
const requireFromCore = createRequire(path.join(core, 'package.json'));
const BUNDLE = 'llmx-tfjs-specs.cjs';
/** Milliseconds for an asynchronous spec: the slowest of all specs takes half a second on an idle machine. */
const SPEC_LIMIT = 10_000;

/** Each loads a backend on the copy of tfjs-core that @llmx/core uses. Returns why it cannot be used, if so. */
const BACKENDS = {
  cpu() {
    requireFromCore('@tensorflow/tfjs-backend-cpu');
  },
  async native() {
    const { nativeUnavailable, registerNativeBackend } = await import('@llmx/backend-native');
    const reason = nativeUnavailable();
    if (reason === undefined) await registerNativeBackend();
    return reason;
  },
};

/**
 * One suite, on moving data between two instances of a backend, works for any backend, as its comment says, and names
 * `cpu`. Here it is about the backend under test.
 */
const anyBackend = (backend) => ({
  name: 'any-backend',
  setup({ onLoad }) {
    onLoad({ filter: /tfjs-core[/\\]dist[/\\]engine_test\.js$/ }, ({ path: file }) => ({
      contents: fs.readFileSync(file, 'utf8').replaceAll("'cpu'", `'${backend}'`),
    }));
  },
});

// Chained ops and gradients come first: the specs use them. The specs' own module lists all of them; it is loaded when
// there is a backend to describe them for.
const ENTRY = `
import '@tensorflow/tfjs-core/dist/index.js';
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import { setTestEnvs } from '@tensorflow/tfjs-core/dist/jasmine_util.js';
export async function describeSpecs(backend) {
  setTestEnvs([{ name: backend, backendName: backend, isDataSync: true }]);
  await import('@tensorflow/tfjs-core/dist/tests.js');
}
`;

/**
 * The specs as one module: Node cannot import them one by one (extensionless imports inside an ES-module tree without
 * "type": "module"). They bring a copy of tfjs-core's ops, but engine and registries are global, so that they use the
 * engine and the backend loaded here.
 */
async function bundleSpecs(backend) {
  const result = await build({
    stdin: { contents: ENTRY, resolveDir: core },
    bundle: true,
    write: false,
    // The specs call `require`.
    format: 'cjs',
    platform: 'node',
    mainFields: ['module', 'main'],
    // tfjs-core declares its specs free of side effects, so that they would be left out.
    ignoreAnnotations: true,
    // tfjs-core does not declare it. This copy only gets a time limit set.
    alias: { 'jasmine-core/lib/jasmine-core/jasmine.js': require.resolve('jasmine-core/lib/jasmine-core/jasmine.js') },
    plugins: [anyBackend(backend)],
    logLevel: 'error',
  });
  return result.outputFiles[0].contents;
}

function load(contents) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-tfjs-specs-'));
  try {
    const file = path.join(folder, BUNDLE);
    fs.writeFileSync(file, contents);
    return require(file);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** What jasmine gives of one failed expectation: the message, and where it was thrown if not in the bundle. */
function describeFailure({ message, stack }) {
  const frames = (stack ?? '').split('\n').filter((line) => line.startsWith('    at ') && !line.includes(BUNDLE));
  return [message, ...frames].join('\n');
}

/** A jasmine reporter: counts, and collects what failed, in specs and outside of them. */
class Report {
  passed = 0;
  pending = 0;
  failures = [];

  /** Written at once, so that the last one is to blame if the process dies. */
  specStarted({ fullName }) {
    process.stderr.write(`${fullName}\n`);
  }

  specDone({ status, fullName, failedExpectations }) {
    if (status === 'passed') this.passed++;
    else if (status === 'pending') this.pending++;
    else this.#add(fullName, failedExpectations, status);
  }

  suiteDone({ fullName, failedExpectations }) {
    if (failedExpectations.length > 0) this.#add(fullName, failedExpectations, 'failed');
  }

  jasmineDone({ overallStatus, failedExpectations, incompleteReason }) {
    const complete = overallStatus === 'passed' || this.failures.length > 0;
    if (failedExpectations.length > 0 || !complete) {
      this.#add('the whole run', failedExpectations, incompleteReason ?? overallStatus);
    }
  }

  #add(name, failedExpectations, status) {
    const messages = failedExpectations.map(describeFailure);
    this.failures.push({ name, messages: messages.length > 0 ? messages : [status] });
  }
}

async function runSpecs(backend) {
  const jasmine = jasmineCore.boot();
  const env = jasmine.getEnv();
  // Several suites share their names.
  env.configure({ random: false, forbidDuplicateNames: false });
  const report = new Report();
  env.addReporter(report);
  // Some specs raise the limit to minutes for all that follow.
  env.addReporter({ specStarted: () => void (jasmine.DEFAULT_TIMEOUT_INTERVAL = SPEC_LIMIT) });
  await load(await bundleSpecs(backend)).describeSpecs(backend);
  await env.execute();
  return report;
}

/** Standard output may be a pipe, which is written behind the program's back. */
function end(result, status) {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(status));
}

const [backend] = process.argv.slice(2);
if (!Object.hasOwn(BACKENDS, backend ?? '')) {
  console.error(`Usage: node scripts/tfjs-specs.mjs <${Object.keys(BACKENDS).join(' | ')}>`);
  process.exit(2);
}
const unavailable = await BACKENDS[backend]();
if (unavailable === undefined) {
  const report = await runSpecs(backend);
  for (const { name, messages } of report.failures) console.error(`Failed: ${name}\n  ${messages.join('\n  ')}`);
  end(report, report.failures.length > 0 ? 1 : 0);
} else {
  end({ unavailable }, 0);
}
