/** A configuration before it is validated: plain data as a file gives it. */
export type Tree = Readonly<Record<string, unknown>>;

/** Whether `value` is a plain object, not a list, a date or an instance of a class. */
export function isTree(value: unknown): value is Tree {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** `tree` with `key` set; an own property whatever the key is called. */
export const withKey = (tree: Tree, key: string, value: unknown): Tree => ({ ...tree, [key]: value });

/**
 * `over` laid upon `base`: objects merge key by key, everything else replaces. A selection merges only with one of the
 * same component, since options of one component mean nothing to another: `{ name: lion }` replaces `{ name: adamw,
 * beta1: 0.9 }`, and `{ lr: 0.1 }` upon the shorthand `adamw` is `{ name: adamw, lr: 0.1 }`.
 */
export function merge(base: unknown, over: unknown): unknown {
  if (!isTree(over)) return over;
  const under = typeof base === 'string' ? { name: base } : base;
  if (!isTree(under)) return over;
  if (over['name'] !== undefined && under['name'] !== undefined && over['name'] !== under['name']) return over;
  return Object.entries(over).reduce(
    (merged, [key, value]) => (value === undefined ? merged : withKey(merged, key, merge(own(merged, key), value))),
    under,
  );
}

/** The value under `key`, never one inherited from a prototype. */
export const own = (tree: Tree, key: string): unknown => (Object.hasOwn(tree, key) ? tree[key] : undefined);

/** Dotted paths of everything that `value` holds, objects and lists included: `model`, `model.blocks.0.heads`. */
export function pathsOf(value: unknown, path = ''): string[] {
  const entries = Array.isArray(value) || isTree(value) ? Object.entries(value) : [];
  const below = entries.flatMap(([key, child]) =>
    child === undefined ? [] : pathsOf(child, path === '' ? key : `${path}.${key}`),
  );
  return path === '' ? below : [path, ...below];
}
