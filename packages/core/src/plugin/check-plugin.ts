import semver from 'semver';
import { z } from 'zod';

import { reasonOf, show } from '../config/problems.ts';
import { fieldsOf, isStrictObject } from '../config/shape.ts';
import { isTree } from '../config/tree.ts';
import { type ErrorCode, LlmxError, suggestion } from '../errors/index.ts';
import { HOOK_KINDS, type Plugin } from './plugin-types.ts';
import type { Kind } from './types.ts';

type Fields = Readonly<Record<string, unknown>>;

const COMPONENT_NAME = /^[a-z0-9]+(-[a-z0-9]+)*$/;
const PLUGIN_KEYS = ['name', 'version', 'llmx', 'components', 'config', 'setup'];
const COMPONENT_KEYS = ['kind', 'name', 'summary', 'paper', 'config', 'build'];
const INSTANCE_KEYS = ['hooks', 'saveState', 'loadState'];
const SETUP_HINT =
  'setup is a synchronous function that returns { hooks, saveState, loadState }, each of them optional; hooks is an object.';
const HOOK_KEYS = ['handler', 'order', 'every'];
/** Hooks that do not belong to a step, so that `every` means nothing. */
const WITHOUT_STEP: readonly string[] = ['resolveConfig', 'backendReady', 'run', 'error'];

/** Kinds of components, each with the option names that the configuration gives a meaning of its own. */
const RESERVED: Readonly<Record<Kind, readonly string[]>> = {
  architecture: ['name', 'architecture', 'vocabSize', 'contextLength'],
  backend: ['name'],
  block: ['name', 'block', 'repeat'],
  draft: ['name'],
  objective: ['name'],
  optimizer: ['name'],
  schedule: ['name'],
  sink: ['name'],
  source: ['name'],
  task: ['name'],
  tokenizer: ['name'],
};

/** Makes one problem of a plugin: what is wrong, and what to do about it. */
type Report = (reason: string, hint?: string, code?: ErrorCode) => LlmxError;

const reporter =
  (label: string, plugin: string): Report =>
  (reason, hint, code = 'LLMX_PLUGIN_INVALID') =>
    new LlmxError(code, `[plugin ${label}] ${reason}.`, { hint, plugin });

/** Everything that is wrong with a module's default export as a plugin; `entry` is how the configuration names it. */
export function pluginProblems(exported: unknown, entry: string, coreVersion: string): LlmxError[] {
  if (!isFields(exported)) {
    const hint = 'Its module must say: export default definePlugin({ ... }).';
    return [reporter(entry, entry)(`is no plugin: its default export is ${described(exported)}`, hint)];
  }
  const { name, version } = exported;
  const label = typeof name === 'string' && typeof version === 'string' ? `${name} ${version}` : entry;
  const report = reporter(label, typeof name === 'string' ? name : entry);
  return [
    ...unknownKeys(exported, PLUGIN_KEYS, 'definePlugin', report),
    ...identityProblems(exported, coreVersion, report),
    ...(exported['config'] === undefined
      ? []
      : schemaProblems(exported['config'], 'options of its own', ['name'], report)),
    ...componentListProblems(exported['components'], report),
    ...(isAbsentOrFunction(exported['setup']) ? [] : [report('has a setup that is no function', SETUP_HINT)]),
  ];
}

function identityProblems({ name, version, llmx }: Fields, coreVersion: string, report: Report): LlmxError[] {
  const problems: LlmxError[] = [];
  if (typeof name !== 'string' || !/^\S+$/.test(name)) {
    problems.push(
      report(`has the name ${show(name)}`, 'Its name is text without spaces, best that of its npm package.'),
    );
  }
  if (typeof version !== 'string' || semver.valid(version) === null) {
    problems.push(report(`has the version ${show(version)}`, 'Its version is of the form 1.2.3.'));
  }
  if (typeof llmx !== 'string' || semver.validRange(llmx) === null) {
    const hint = `Give the versions of @llmx/core that it works with, e.g. llmx: "^${coreVersion}".`;
    problems.push(report(`has the llmx range ${show(llmx)}`, hint));
  } else if (!semver.satisfies(coreVersion, llmx, { includePrerelease: true })) {
    const hint = `Install a version of the plugin made for @llmx/core ${coreVersion}, or an llmx in the range ${llmx}.`;
    problems.push(report(`needs @llmx/core ${llmx}, and this is ${coreVersion}`, hint, 'LLMX_PLUGIN_VERSION'));
  }
  return problems;
}

function componentListProblems(components: unknown, report: Report): LlmxError[] {
  if (components === undefined) return [];
  if (!Array.isArray(components))
    return [report(`has components that are ${described(components)}`, 'Write them as a list: components: [ ... ].')];
  return components.flatMap((component: unknown, index) => {
    if (isFields(component)) return componentProblems(component, index, report);
    return [report(`has a component ${index} that is ${described(component)}`, 'Make it with define<Kind>({ ... }).')];
  });
}

function componentProblems(component: Fields, index: number, report: Report): LlmxError[] {
  const { kind, name, summary, paper, config, build } = component;
  if (typeof kind !== 'string' || !Object.hasOwn(RESERVED, kind)) {
    const hint = suggestion(String(kind), Object.keys(RESERVED));
    return [report(`has a component ${show(name ?? index)} of the unknown kind ${show(kind)}`, hint)];
  }
  const what = `the ${kind} ${show(name ?? index)}`;
  const problems = unknownKeys(component, COMPONENT_KEYS, what, report);
  if (typeof name !== 'string' || !COMPONENT_NAME.test(name)) {
    problems.push(report(`has ${what} with an unusable name`, 'Names are lower-case words joined by "-".'));
  }
  if (typeof summary !== 'string' || summary === '')
    problems.push(report(`has ${what} without a summary`, 'A summary is one line for "llmx components".'));
  if (paper !== undefined && typeof paper !== 'string')
    problems.push(report(`has ${what} whose paper is no text`, 'Give the address of the paper, or leave it out.'));
  if (typeof build !== 'function')
    problems.push(
      report(`has ${what} without a build function`, 'build(config, context) gives what the component is.'),
    );
  return [
    ...problems,
    ...schemaProblems(config, what, RESERVED[kind as Kind], report, kind === 'optimizer' ? 'lr' : undefined),
  ];
}

function schemaProblems(
  schema: unknown,
  what: string,
  reserved: readonly string[],
  report: Report,
  required?: string,
): LlmxError[] {
  if (!isZodSchema(schema)) {
    return [
      report(
        `has ${what} whose config is ${described(schema)}`,
        'Write it as z.strictObject({ ... }), with z from @llmx/core.',
      ),
    ];
  }
  if (!isStrictObject(schema)) {
    return [
      report(
        `has ${what} whose config accepts any key`,
        'Write it as z.strictObject({ ... }), so that typing errors are found.',
      ),
    ];
  }
  const keys = Object.keys(fieldsOf(schema) ?? {});
  const problems = reserved
    .filter((key) => keys.includes(key))
    .map((key) =>
      report(`has ${what} with an option "${key}", which means something else there`, 'Rename the option.'),
    );
  if (required !== undefined && !keys.includes(required)) {
    problems.push(
      report(`has ${what} without the option "${required}"`, 'Every optimizer has a learning rate: lr: z.number().'),
    );
  }
  const obstacle = conversionObstacle(schema);
  if (obstacle === undefined) return problems;
  const hint = 'Its config becomes a JSON Schema: use plain data, without transforms, dates or functions.';
  return [...problems, report(`has ${what} whose config cannot become a JSON Schema: ${obstacle}`, hint)];
}

/** Why a schema has no JSON Schema that tells everything about it. */
function conversionObstacle(schema: z.ZodType): string | undefined {
  try {
    z.toJSONSchema(schema, { io: 'input', cycles: 'throw', override: ({ zodSchema }) => refuseTransform(zodSchema) });
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

// A value would not survive being printed and read again; JSON Schema shows one side of it and says nothing.
function refuseTransform({ _zod: { def } }: z.core.$ZodType): void {
  if (def.type === 'pipe' || def.type === 'transform') throw new Error('it transforms values');
}

/** Everything that is wrong with what a plugin's `setup` returned. */
export function instanceProblems(instance: unknown, { name, version }: Plugin): LlmxError[] {
  const report = reporter(`${name} ${version}`, name);
  if (instance instanceof Promise || !isFields(instance)) {
    if (instance instanceof Promise) instance.catch(() => {}); // told below; unhandled, it would end the process
    return [report(`returned ${described(instance)} from setup`, SETUP_HINT)];
  }
  const { hooks, saveState, loadState } = instance;
  const problems = unknownKeys(instance, INSTANCE_KEYS, 'what setup returns', report);
  if (!isAbsentOrFunction(saveState) || !isAbsentOrFunction(loadState)) {
    problems.push(report('has a saveState or loadState that is no function', SETUP_HINT));
  } else if ((saveState === undefined) !== (loadState === undefined)) {
    const hint = 'A resumed run needs both: one gives what the other takes back.';
    problems.push(report(`has ${saveState ? 'saveState without loadState' : 'loadState without saveState'}`, hint));
  }
  if (hooks !== undefined && !isFields(hooks))
    return [...problems, report(`has hooks that are ${described(hooks)}`, SETUP_HINT)];
  return [...problems, ...Object.entries(hooks ?? {}).flatMap(([hook, value]) => hookProblems(hook, value, report))];
}

function hookProblems(name: string, hook: unknown, report: Report): LlmxError[] {
  if (!Object.hasOwn(HOOK_KINDS, name)) {
    return [report(`has an unknown hook "${name}"`, suggestion(name, Object.keys(HOOK_KINDS)))];
  }
  if (hook === undefined || typeof hook === 'function') return [];
  if (!isFields(hook) || typeof hook['handler'] !== 'function') {
    return [
      report(`has the ${name} hook whose handler is no function`, 'Give a function, or { handler, order, every }.'),
    ];
  }
  const { order, every } = hook;
  const problems = unknownKeys(hook, HOOK_KEYS, `the ${name} hook`, report);
  if (order !== undefined && order !== 'pre' && order !== 'post') {
    problems.push(
      report(
        `has the ${name} hook with the order ${show(order)}`,
        'The order is pre or post; leave it out for neither.',
      ),
    );
  }
  if (every !== undefined && (!Number.isSafeInteger(every) || (every as number) < 1)) {
    problems.push(report(`has the ${name} hook with every: ${show(every)}`, 'every is a number of steps, at least 1.'));
  } else if (every !== undefined && WITHOUT_STEP.includes(name)) {
    problems.push(
      report(`has the ${name} hook with every: ${show(every)}, which has no effect there`, 'Remove every.'),
    );
  }
  return problems;
}

/** Keys that nothing reads; an instance of a class may have fields of its own. */
function unknownKeys(object: Fields, known: readonly string[], where: string, report: Report): LlmxError[] {
  return Object.keys(isTree(object) ? object : {})
    .filter((key) => !known.includes(key))
    .map((key) => report(`has an unknown key "${key}" in ${where}`, suggestion(key, known)));
}

/** An object with fields; an instance of a class is one too. */
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isAbsentOrFunction = (value: unknown): boolean => value === undefined || typeof value === 'function';

const isZodSchema = (value: unknown): value is z.ZodType =>
  isFields(value) && isFields(value['_zod']) && typeof value['safeParse'] === 'function';

function described(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value instanceof Promise) return 'a promise';
  if (Array.isArray(value)) return 'a list';
  return isTree(value) ? 'an object' : `of type ${value === null ? 'null' : typeof value}`;
}
