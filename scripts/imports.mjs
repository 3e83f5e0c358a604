// `npm run imports`: holds the import direction of .dependency-cruiser.mjs over all packages, after checking that every
// kind of violation would be found.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { cruise } from 'dependency-cruiser';

import config from '../.dependency-cruiser.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Each file breaks the rule it stands beside. */
const VIOLATIONS = [
  ['core-layers-errors', 'packages/core/src/errors/a.ts', "import '../tensor/a.ts';"],
  ['core-layers-config', 'packages/core/src/config/a.ts', "import type { T } from '../plugin/a.ts';"],
  ['core-layers-plugin', 'packages/core/src/plugin/a.ts', "export * from '../index.ts';"],
  ['core-layers-tensor', 'packages/core/src/tensor/a.ts', "await import('../data/a.ts');"],
  ['core-layers-data', 'packages/core/src/data/a.ts', "import '../nn/a.ts';"],
  ['core-layers-nn', 'packages/core/src/nn/a.ts', "import '../backend/a.ts';"],
  ['core-layers-objective', 'packages/core/src/objective/a.ts', "import '../optimizer/a.ts';"],
  ['core-layers-optimizer', 'packages/core/src/optimizer/a.ts', "import '../schedule/a.ts';"],
  ['core-layers-schedule', 'packages/core/src/schedule/a.ts', "import '../train/a.ts';"],
  ['core-layers-backend', 'packages/core/src/backend/a.ts', "import '../run/a.ts';"],
  ['core-layers-train', 'packages/core/src/train/a.ts', "import '../checkpoint/a.ts';"],
  ['core-layers-checkpoint', 'packages/core/src/checkpoint/a.ts', "import '../generate/a.ts';"],
  ['core-layers-generate', 'packages/core/src/generate/a.ts', "import '../run/a.ts';"],
  ['core-layers-profile', 'packages/core/src/profile/a.ts', "import '../run/a.ts';"],
  ['core-known-folders', 'packages/core/src/misc/a.ts', "import '../errors/a.ts';"],
  ['core-is-lowest', 'packages/core/src/run/a.ts', "import '../../../cli/src/a.ts';"],
  ['plugins-apart', 'packages/plugin-a/src/a.ts', "import '../../plugin-b/src/a.ts';"],
  ['core-node-modules', 'packages/core/src/run/b.ts', "import 'node:child_process';"],
  ['core-by-its-door', 'packages/cli/src/a.ts', "import '../../core/src/errors/a.ts';"],
  ['testing-in-tests', 'packages/core/src/index.ts', "import './testing/a.ts';"],
  ['no-test-imports', 'packages/core/src/testing/a.ts', "import '../run/a.test.ts';"],
  ['no-cycles', 'packages/core/src/run/c.ts', "import type { D } from './d.ts';"],
  ['no-unresolved', 'packages/core/src/run/e.ts', "import './nothing.ts';"],
  ['no-undeclared', 'packages/core/src/run/f.ts', "import 'undeclared';"],
];

/** Every violation in the packages below a folder, as `rule: from -> to`, and how many modules were read. */
async function check(folder) {
  const options = { ...config.options, baseDir: folder, ruleSet: { forbidden: config.forbidden }, validate: true };
  const { output } = await cruise(['packages'], options);
  if (typeof output === 'string') throw new Error(output);
  const violations = output.summary.violations.map(({ rule, from, to }) => ({ rule: rule.name, from, to }));
  const modules = output.modules.filter(({ source }) => /^packages\/[^/]+\/src\/.*\.ts$/.test(source));
  return { violations, modules: modules.length };
}

/** The rules that fail to fire on their own violation. */
async function toothlessRules() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-imports-'));
  try {
    const write = (file, text) => {
      fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
      fs.writeFileSync(path.join(folder, file), `${text}\n`);
    };
    for (const [, file, text] of VIOLATIONS) write(file, `${text}\nexport type T = 1;`);
    write('packages/core/package.json', '{}');
    write('packages/core/src/run/a.test.ts', 'export {};');
    write('packages/plugin-b/src/a.ts', 'export {};');
    write('packages/core/src/run/d.ts', "import './c.ts';");
    write('node_modules/undeclared/package.json', '{}');
    write('node_modules/undeclared/index.js', '');
    const { violations } = await check(folder);
    const fired = new Set(violations.map(({ rule, from }) => `${rule} ${from}`));
    const expected = [...VIOLATIONS, ...config.forbidden.map(({ name }) => [name, undefined])];
    return expected.filter(([rule, file]) =>
      file === undefined ? !VIOLATIONS.some(([name]) => name === rule) : !fired.has(`${rule} ${file}`),
    );
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** Number of TypeScript files in the packages. */
function countSources() {
  const packages = path.join(root, 'packages');
  return fs
    .readdirSync(packages)
    .map((name) => path.join(packages, name, 'src'))
    .filter((folder) => fs.existsSync(folder))
    .flatMap((folder) => fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }))
    .filter((file) => file.endsWith('.ts')).length;
}

const problems = (await toothlessRules()).map(([rule, file]) => `${rule} lets ${file ?? 'everything'} pass`);
const { violations, modules } = await check(root);
problems.push(...violations.map(({ rule, from, to }) => `${rule}: ${from} -> ${to}`));
// With a TypeScript that it does not know, dependency-cruiser finds nothing and is content.
if (modules !== countSources()) problems.push(`${modules} modules were read where there are ${countSources()} files`);
for (const problem of problems) console.error(problem);
const comments = config.forbidden.filter(({ name }) => problems.some((problem) => problem.startsWith(`${name}:`)));
for (const { name, comment } of comments) console.error(`(${name}) ${comment}`);
console.log(`${modules} modules, ${problems.length} problems with imports`);
process.exitCode = problems.length > 0 ? 1 : 0;
