import type { z } from 'zod';

import { attempt, below, check, type Checked, type Locate, unknownKey } from '../config/problems.ts';
import { blockPatternSchema, type ModelConfig } from '../config/schema.ts';
import { fieldsOf } from '../config/shape.ts';
import type { Tree } from '../config/tree.ts';
import type { LlmxError } from '../errors/index.ts';
import type { Registry } from './registry.ts';
import type { Selected } from './types.ts';

/** Keys of `model` that core reads itself; architectures get them through their build context. */
const CORE_KEYS = ['architecture', 'vocabSize', 'contextLength'];

/** The architecture that a resolved `model` selects, with its options. */
export function selectedArchitecture({
  architecture,
  vocabSize: _,
  contextLength: __,
  ...options
}: ModelConfig): Selected {
  return { ...options, name: architecture };
}

/**
 * Works out all options of the architecture `name` from the keys of `model` as they were given. A key goes to the
 * architecture if its schema knows it, and to every block of the pattern whose schema knows it and whose entry does not
 * have it; a key that nobody knows is a problem. Defaults of the architecture never reach blocks. With `inherit: false`
 * nothing reaches blocks: a resolved configuration has every option in its place.
 */
export function resolveArchitecture(name: string, given: Tree, registry: Registry, inherit: boolean): Checked<Tree> {
  const architecture = attempt(() => registry.get('architecture', name));
  if (architecture.problems) return architecture;
  const fields = fieldsOf(architecture.value.config) ?? {};
  const settings = omit(given, CORE_KEYS);
  const pattern = patternOf(fields['blocks'], given['blocks']);
  if (pattern.problems) return pattern;
  const shared = inherit ? omit(settings, ['blocks']) : {};
  const blocks = pattern.value.map((entry, index) => resolveEntry(entry, index, shared, registry));
  const known = new Set([...Object.keys(fields), ...blocks.flatMap((block) => block.known)]);
  const options = pick(settings, Object.keys(fields));
  const withBlocks = blocks.length === 0 ? options : { ...options, blocks: blocks.map(({ entry }) => entry) };
  const checked = registry.check('architecture', { ...withBlocks, name }, below('model'));
  const problems = [
    ...Object.keys(settings)
      .filter((key) => !known.has(key))
      .map((key) => unknownKey(key, [...CORE_KEYS, ...known], below('model'))),
    ...blocks.flatMap((block) => block.problems),
    ...(checked.problems ?? []),
  ];
  return checked.problems || problems.length > 0 ? { problems } : { value: omit(checked.value, ['name']) };
}

type Entry = z.output<typeof blockPatternSchema>[number];

/** The entries of `blocks`, given or by default; none where the architecture has no such option. */
function patternOf(field: z.core.$ZodType | undefined, given: unknown): Checked<readonly Entry[]> {
  if (field === undefined) return { value: [] };
  const ownCheck = check(field as z.ZodType, given, below('model', 'blocks'));
  return ownCheck.problems ? ownCheck : check(blockPatternSchema, ownCheck.value, below('model', 'blocks'));
}

interface ResolvedEntry {
  /** With all options of the block; as given where there are problems. */
  readonly entry: Tree;
  /** Keys of the block's schema. */
  readonly known: readonly string[];
  readonly problems: readonly LlmxError[];
}

/** Checks one entry of `blocks` with the settings of `model` that its block knows and that it leaves open. */
function resolveEntry(entry: Entry, index: number, shared: Tree, registry: Registry): ResolvedEntry {
  const { block, repeat, ...given } = entry;
  const component = attempt(() => registry.get('block', block));
  if (component.problems) return { entry, known: Object.keys(shared), problems: component.problems };
  const known = Object.keys(fieldsOf(component.value.config) ?? {});
  const inherited = omit(pick(shared, known), Object.keys(given));
  const locate: Locate = ([key, ...rest]) =>
    key !== undefined && Object.hasOwn(inherited, key)
      ? below('model', key)(rest)
      : below('model', 'blocks', index)(key === undefined ? [] : [key, ...rest]);
  const checked = registry.check('block', { ...inherited, ...given, name: block }, locate);
  if (checked.problems) return { entry, known, problems: checked.problems };
  return { entry: { block, repeat, ...omit(checked.value, ['name']) }, known, problems: [] };
}

const pick = (tree: Tree, keys: readonly string[]): Tree =>
  Object.fromEntries(Object.entries(tree).filter(([key]) => keys.includes(key)));

const omit = (tree: Tree, keys: readonly string[]): Tree =>
  Object.fromEntries(Object.entries(tree).filter(([key]) => !keys.includes(key)));
