// Who may import whom, over paths from the root of the workspace; scripts/imports.mjs runs it.

/** The folders of core, lowest layer first; a folder imports from itself and from lower layers. */
const LAYERS = [
  ['errors'],
  ['config'],
  ['plugin'],
  ['tensor'],
  ['data', 'nn', 'objective', 'optimizer', 'schedule', 'backend'],
  ['train', 'checkpoint', 'generate'],
  ['profile'],
];
const CORE = '^packages/core/src/';
const TEST = '\\.(test|test-prop|test-d)\\.ts$';
const ENTRY = '^packages/core/(dist/(testing/)?index\\.(js|d\\.ts)|package\\.json)$';
/** What core needs of Node. Signals, the terminal and child processes are the business of the program around it. */
const NODE_MODULES = '^(node:)?(fs|fs/promises|path|crypto|os|url|worker_threads|module)$';

/** @returns {import('dependency-cruiser').IForbiddenRuleType} */
const forbid = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to });

const layerRules = LAYERS.flatMap((layer, level) =>
  layer.map((folder) => {
    const allowed = [folder, ...LAYERS.slice(0, level).flat()];
    return forbid(
      `core-layers-${folder}`,
      `${folder}/ may import ${allowed.join(', ')} only.`,
      { path: `${CORE}${folder}/`, pathNot: TEST },
      { path: CORE, pathNot: `${CORE}(${allowed.join('|')})/` },
    );
  }),
);

export default {
  forbidden: [
    ...layerRules,
    forbid(
      'core-known-folders',
      'A folder of core that no layer names: add it to LAYERS.',
      { path: `${CORE}[^/]+/`, pathNot: `${CORE}(${LAYERS.flat().join('|')}|run|testing)/` },
      {},
    ),
    forbid(
      'core-is-lowest',
      'Core names no other package of the workspace.',
      { path: '^packages/core/' },
      { path: '^packages/(?!core/)' },
    ),
    forbid(
      'plugins-apart',
      'Plugins and backends build on core alone, never on each other; plugins may bring kernels for the C++ engine.',
      { path: '^packages/(plugin|backend)-([^/]+)/' },
      { path: '^packages/', pathNot: '^packages/(core|backend-native|$1-$2)/' },
    ),
    forbid(
      'core-node-modules',
      'Core uses files, paths, hashes and threads of Node; the rest comes through the host.',
      { path: CORE, pathNot: [TEST, `${CORE}testing/`] },
      { dependencyTypes: ['core'], pathNot: NODE_MODULES },
    ),
    forbid(
      'core-by-its-door',
      'Other packages use the public entry points of @llmx/core only.',
      { path: '^packages/(?!core/)' },
      { path: '^packages/core/', pathNot: ENTRY },
    ),
    forbid(
      'testing-in-tests',
      'The contract suites load vitest: only tests import them.',
      { path: '^packages/', pathNot: [TEST, `${CORE}testing/`] },
      { path: '^packages/core/(src|dist)/testing/' },
    ),
    forbid('no-test-imports', 'What tests share stands in a file of its own.', {}, { path: TEST }),
    forbid('no-cycles', 'Modules that import each other cannot be understood one by one.', {}, { circular: true }),
    forbid('no-unresolved', 'There is no such file or package.', {}, { couldNotResolve: true }),
    forbid(
      'no-undeclared',
      'A published package declares what it imports as a dependency of its own.',
      { path: '^packages/[^/]+/(src|bin)/', pathNot: [TEST, '^packages/[^/]+/src/testing/'] },
      { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'] },
    ),
  ],
  options: {
    doNotFollow: { path: ['node_modules', '/dist/'] },
    exclude: { path: '(^|/)dist/vendor/' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'] },
  },
};
