import { LlmxError } from '../errors/index.ts';
import { reasonOf, show } from './problems.ts';
import { isTree, own, type Tree, withKey } from './tree.ts';
import { parseYaml } from './yaml.ts';

const FORM = 'Write --set path=value, for example --set train.steps=500 or --set optimizer.lr=0.01.';

/**
 * Applies `path=value` settings in order. Values are YAML scalars or flow collections; a number in a path is the
 * position in a list, its length appends; a key below a shorthand makes `{ name, key }` of it.
 *
 * @throws LlmxError `LLMX_USAGE`
 */
export const applyOverrides = (tree: Tree, sets: readonly string[]): Tree =>
  sets.reduce((config, set) => {
    const { path, value } = parseOverride(set);
    return setAt(config, path, value, { set, done: [] }) as Tree;
  }, tree);

function parseOverride(set: string): { path: string[]; value: unknown } {
  const equals = set.indexOf('=');
  const path = set.slice(0, Math.max(equals, 0)).trim().split('.');
  if (equals < 0 || path.includes('')) throw usage(set, 'is not of the form path=value');
  if (path[0] === 'extends') throw usage(set, 'has no effect: files are merged before settings');
  return { path, value: parseValue(set, set.slice(equals + 1).trim()) };
}

function parseValue(set: string, text: string): unknown {
  if (text === '') throw usage(set, 'has no value');
  if (text.startsWith('@')) return text; // a scoped package, which YAML would refuse
  try {
    return parseYaml(text, 'The value');
  } catch (cause) {
    throw usage(set, `has a value that is not YAML (${reasonOf(cause)})`);
  }
}

interface Place {
  readonly set: string;
  /** The part of the path that is behind us. */
  readonly done: readonly string[];
}

function setAt(target: unknown, [key, ...rest]: readonly string[], value: unknown, place: Place): unknown {
  if (key === undefined) return value;
  const next = { ...place, done: [...place.done, key] };
  const container = containerFor(target, key, place);
  if (isTree(container)) return withKey(container, key, setAt(own(container, key), rest, value, next));
  const index = Number(key);
  if (!/^\d+$/.test(key) || index > container.length) {
    const size = `which is a list of ${container.length}`;
    throw usage(place.set, `names entry "${key}" of ${place.done.join('.')}, ${size}`);
  }
  return container.toSpliced(index, 1, setAt(container[index], rest, value, next));
}

function containerFor(target: unknown, key: string, { set, done }: Place): Tree | readonly unknown[] {
  if (target === undefined || target === null) return key === '0' ? [] : {};
  if (typeof target === 'string') return { name: target };
  if (isTree(target) || Array.isArray(target)) return target;
  throw usage(set, `sets a key of ${done.join('.')}, which is ${show(target)}`);
}

const usage = (set: string, reason: string): LlmxError =>
  new LlmxError('LLMX_USAGE', `--set ${set} ${reason}.`, { hint: FORM });
