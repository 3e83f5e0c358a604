import type { ComponentListing } from '@llmx/core';

import { wrappedTable } from './format.ts';
import { style } from './style.ts';

type Schema = ComponentListing['options'];

/** An option of a component. */
export interface ComponentOption {
  readonly name: string;
  /** In words, e.g. `integer` or `layernorm | rmsnorm`. */
  readonly type: string;
  /** Absent where the option has none. */
  readonly default?: unknown;
  readonly required: boolean;
  readonly description?: string | undefined;
}

/** A value as a configuration would hold it. */
const shown = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** The type that a JSON Schema stands for, in words. */
function typeName(schema: Schema): string {
  const { type, const: constant, enum: values, anyOf, items } = schema as Record<string, unknown>;
  if (constant !== undefined) return shown(constant);
  if (Array.isArray(values)) return values.map((value) => shown(value)).join(' | ');
  if (Array.isArray(anyOf)) return [...new Set(anyOf.map((branch) => typeName(branch as Schema)))].join(' | ');
  if (type === 'array') return `list of ${typeName((items ?? {}) as Schema)}`;
  return typeof type === 'string' ? type : 'any';
}

/** The options of a component, in their order. */
export const componentOptions = ({ properties = {}, required = [] }: Schema): ComponentOption[] =>
  Object.entries(properties).map(([name, schema]) => ({
    name,
    type: typeName(schema),
    ...('default' in schema && { default: schema['default'] }),
    required: required.includes(name),
    description: schema['description'] as string | undefined,
  }));

const optionRow = (option: ComponentOption): string[] => [
  `      ${option.name}`,
  option.type,
  option.required ? 'required' : 'default' in option ? shown(option.default) : '',
  option.description ?? '',
];

/** A component for people: name and summary, where it comes from, its options. */
export function componentLines({ name, summary, plugin, paper, options }: ComponentListing): string[] {
  const origin = [`${plugin.name} ${plugin.version}`, ...(paper === undefined ? [] : [paper])].join('  ');
  return [
    `  ${style('bold', name)}  ${summary}`,
    `      ${style('dim', origin)}`,
    ...wrappedTable(componentOptions(options).map(optionRow)),
  ];
}
