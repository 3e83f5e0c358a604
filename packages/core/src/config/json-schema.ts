import { z } from 'zod';

import { configSchema, SELECTIONS } from './schema.ts';

/** A JSON Schema (draft 2020-12), as far as this module looks into it. */
export interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly [keyword: string]: unknown;
}

/** What the schema of the file needs to know of a component. */
export interface ComponentInfo {
  readonly kind: string;
  readonly name: string;
  readonly summary: string;
  readonly config: z.ZodType;
}

/**
 * The JSON Schema of options as a user writes them: what has a default may be left out.
 *
 * @throws Error where the schema holds what JSON Schema cannot say, e.g. a transform
 */
export function optionsJsonSchema(schema: z.ZodType): JsonSchema {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: 'input', cycles: 'throw' });
  return json as JsonSchema;
}

/** The JSON Schema of the whole configuration file, with the options of each of `components`. */
export function configJsonSchema(components: Iterable<ComponentInfo>): JsonSchema {
  const all = [...components];
  const ofKind = (kind: string): ComponentInfo[] => all.filter((component) => component.kind === kind);
  let schema = optionsJsonSchema(configSchema);
  for (const [kind, { path, name }] of Object.entries(SELECTIONS)) {
    const names = kind === 'backend' ? ['auto'] : [];
    schema = replaced(schema, path, (base) => selectionSchema(base, ofKind(kind), name, names));
  }
  const sinks = ofKind('sink');
  schema = replaced(schema, ['sinks'], (base) => ({
    ...base,
    items: selectionSchema(base['items'] as JsonSchema, sinks),
  }));
  schema = replaced(schema, ['model'], (base) => modelSchema(base, ofKind('architecture'), ofKind('block')));
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'llmx configuration', ...schema };
}

/** `schema` with the property at `path` changed. */
function replaced(
  schema: JsonSchema,
  [key, ...rest]: readonly string[],
  change: (property: JsonSchema) => JsonSchema,
): JsonSchema {
  if (key === undefined) return change(schema);
  const property = replaced(schema.properties?.[key] ?? {}, rest, change);
  return { ...schema, properties: { ...schema.properties, [key]: property } };
}

/** `name` (where it needs no options) or `{ name, ...options }`; the default's name may be left out. */
function selectionSchema(
  { anyOf, ...base }: JsonSchema,
  components: readonly ComponentInfo[],
  defaultName?: string,
  coreNames: readonly string[] = [],
): JsonSchema {
  if (components.length === 0) return { anyOf, ...base };
  const objects = components.map((component) => componentSchema(component, 'name', component.name !== defaultName));
  const bare = components.filter(({ config }) => (optionsJsonSchema(config).required ?? []).length === 0);
  const names = [...coreNames, ...bare.map(({ name }) => name)];
  return { ...base, anyOf: [...(names.length > 0 ? [{ enum: names }] : []), ...objects] };
}

/** A component's options with its name beside them under `key`. */
function componentSchema(component: ComponentInfo, key: string, nameRequired: boolean): JsonSchema {
  const options = optionsJsonSchema(component.config);
  return {
    ...options,
    description: component.summary,
    properties: { [key]: { const: component.name }, ...options.properties },
    required: [...(nameRequired ? [key] : []), ...(options.required ?? [])],
  };
}

/** Per architecture: core's keys, its options, and, where it has blocks, their options as defaults. */
function modelSchema(
  { additionalProperties, ...base }: JsonSchema,
  architectures: readonly ComponentInfo[],
  blocks: readonly ComponentInfo[],
): JsonSchema {
  if (architectures.length === 0) return { additionalProperties, ...base };
  const { properties: core, ...rest } = base;
  const { architecture, ...sizes } = core ?? {};
  const anyOf = architectures.map((component) => {
    const schema = componentSchema(component, 'architecture', component.name !== architecture?.['default']);
    const pattern = schema.properties?.['blocks'];
    if (pattern === undefined) return { ...schema, properties: { ...sizes, ...schema.properties } };
    const properties = { ...sizes, ...blockDefaults(blocks), ...schema.properties };
    return { ...schema, properties: { ...properties, blocks: patternSchema(pattern, blocks) } };
  });
  return { ...rest, anyOf };
}

/** Options that some block has, as `model` may give them to all that know them. */
function blockDefaults(blocks: readonly ComponentInfo[]): Record<string, JsonSchema> {
  const variants: Record<string, Map<string, JsonSchema>> = {};
  for (const { config } of blocks) {
    for (const [key, { default: _, ...schema }] of Object.entries(optionsJsonSchema(config).properties ?? {})) {
      (variants[key] ??= new Map()).set(JSON.stringify(schema), schema);
    }
  }
  return Object.fromEntries(Object.entries(variants).map(([key, schemas]) => [key, { anyOf: [...schemas.values()] }]));
}

/** The list of block entries; options that `model` may give instead are not required here. */
function patternSchema(pattern: JsonSchema, blocks: readonly ComponentInfo[]): JsonSchema {
  const anyOf = blocks.map((block) => {
    const schema = componentSchema(block, 'block', true);
    const repeat = { type: 'integer', minimum: 1, default: 1 };
    return { ...schema, properties: { ...schema.properties, repeat }, required: ['block'] };
  });
  return anyOf.length === 0 ? pattern : { ...pattern, items: { anyOf } };
}
