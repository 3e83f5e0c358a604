import type { z } from 'zod';

type Schema = z.core.$ZodType;

// The definition tells schemas apart by data alone, so schemas of a plugin's own copy of zod are understood too.
const definition = (schema: Schema) => (schema as z.core.$ZodTypes)._zod.def;

/** The schemas that a value may be checked against, below wrappers such as `default` and through unions. */
function alternatives(schema: Schema): readonly Schema[] {
  const def = definition(schema);
  if ('innerType' in def) return alternatives(def.innerType);
  if (def.type === 'lazy') return alternatives(def.getter());
  if (def.type === 'union') return def.options.flatMap(alternatives);
  return [schema];
}

function childOf(schema: Schema, key: PropertyKey): readonly Schema[] {
  const def = definition(schema);
  if (def.type === 'object') return def.shape[String(key)] === undefined ? [] : [def.shape[String(key)]!];
  if (def.type === 'array') return [def.element];
  if (def.type === 'record') return [def.valueType];
  return [];
}

/** The fields of an object schema; `undefined` where the schema is of another type. */
export function fieldsOf(schema: Schema): Readonly<Record<string, Schema>> | undefined {
  const def = definition(schema);
  return def.type === 'object' ? def.shape : undefined;
}

/** Whether `schema` is an object schema that refuses unknown keys. */
export function isStrictObject(schema: Schema): boolean {
  const def = definition(schema);
  return def.type === 'object' && def.catchall !== undefined && definition(def.catchall).type === 'never';
}

/** Keys that the object at `path` may have, by the schemas that can apply there. */
export function keysAt(schema: Schema, path: readonly PropertyKey[]): string[] {
  const reached = path.reduce<readonly Schema[]>(
    (schemas, key) => schemas.flatMap((candidate) => childOf(candidate, key)).flatMap(alternatives),
    alternatives(schema),
  );
  return [...new Set(reached.flatMap((candidate) => Object.keys(fieldsOf(candidate) ?? {})))];
}
