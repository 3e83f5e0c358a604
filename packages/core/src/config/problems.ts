import type { z } from 'zod';

import { assert, LlmxError, LlmxProblems, nearest } from '../errors/index.ts';
import { keysAt } from './shape.ts';

/** A valid value with defaults filled in, or everything that is wrong with it. */
export type Checked<T> = { readonly value: T; readonly problems?: never } | { readonly problems: readonly LlmxError[] };

/** Names a setting, for a user: the path within the value that was checked to the path in the configuration. */
export type Locate = (path: readonly PropertyKey[]) => string;

/** Settings below `prefix`. */
export const below =
  (...prefix: readonly PropertyKey[]): Locate =>
  (path) =>
    [...prefix, ...path].map(String).join('.');

/** Checks a value against a schema. Each problem is a sentence with the setting, its value and what is expected. */
export function check<S extends z.ZodType>(schema: S, value: unknown, locate: Locate = below()): Checked<z.output<S>> {
  const result = schema.safeParse(value, { error: expectation });
  if (result.success) return { value: result.data };
  return { problems: result.error.issues.flatMap((issue) => issueProblems(issue, { schema, value, locate })) };
}

/** Throws all problems in one go, each of them once; does nothing where there are none. */
export function throwProblems(problems: readonly LlmxError[]): void {
  const distinct = [...new Map(problems.map((problem) => [problem.message, problem])).values()];
  const [first, ...others] = distinct;
  if (first !== undefined) throw new LlmxProblems([first, ...others]);
}

/**
 * The value of a check.
 *
 * @throws LlmxProblems if there is none
 */
export function unwrap<T>(checked: Checked<T>): T {
  if (!checked.problems) return checked.value;
  const [first, ...others] = checked.problems;
  assert(first, 'A check failed without a problem.');
  throw new LlmxProblems([first, ...others]);
}

/** What `run` returns, or the problems it throws; errors that are none of llmx's pass through. */
export function attempt<T>(run: () => T): Checked<T> {
  try {
    return { value: run() };
  } catch (error) {
    return { problems: problemsOf(error) };
  }
}

/** The problems that an error of llmx stands for; any other error is thrown again. */
export function problemsOf(error: unknown): readonly LlmxError[] {
  if (error instanceof LlmxProblems) return error.problems;
  if (LlmxError.is(error)) return [error];
  throw error;
}

interface Checking {
  readonly schema: z.ZodType;
  readonly value: unknown;
  readonly locate: Locate;
}

function issueProblems(issue: z.core.$ZodIssue, checking: Checking): LlmxError[] {
  const { schema, value, locate } = checking;
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, issue.path);
    return issue.keys.map((key) => unknownKey(key, known, (path) => locate([...issue.path, ...path])));
  }
  const branch = issue.code === 'invalid_union' ? matchingBranch(issue.errors) : undefined;
  if (branch !== undefined) {
    return branch.flatMap((inner) => issueProblems({ ...inner, path: [...issue.path, ...inner.path] }, checking));
  }
  const given = issue.path.reduce<unknown>(
    (target, key) => (target as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  );
  const absence = issue.code === 'custom' ? '' : ' is missing'; // a rule between settings can fail at one filled in
  const state = given === undefined ? absence : ` is ${show(given)}`;
  return [
    new LlmxError('LLMX_CONFIG_INVALID', `${locate(issue.path) || 'The configuration'}${state}: ${issue.message}.`),
  ];
}

/** The alternative that fits best of those whose type fits: what is wrong lies within it. */
function matchingBranch(branches: readonly (readonly z.core.$ZodIssue[])[]): readonly z.core.$ZodIssue[] | undefined {
  return branches
    .filter((issues) => issues.every(({ code, path }) => path.length > 0 || code === 'unrecognized_keys'))
    .toSorted((a, b) => a.length - b.length)[0];
}

/** The problem of a key that nothing reads, beside the keys that are `known` there. */
export function unknownKey(key: string, known: readonly string[], locate: Locate): LlmxError {
  const near = nearest(key, known);
  const owner = locate([]) || 'The configuration';
  const list = known.length > 0 ? `${owner} takes: ${known.toSorted().join(', ')}.` : `${owner} takes no settings.`;
  return new LlmxError('LLMX_CONFIG_UNKNOWN_KEY', `There is no setting "${locate([key])}".`, {
    hint: near === undefined ? list : `Did you mean "${locate([near])}"?`,
  });
}

const LONGEST = 60;

/** A value as a message shows it: JSON, shortened. */
export function show(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (value === null) return 'empty (null)';
  const json =
    JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part)) ?? typeof value;
  return json.length > LONGEST ? `${json.slice(0, LONGEST - 3)}...` : json;
}

/** The message of anything thrown, on one line and without the full stop. */
export const reasonOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim().replace(/\.$/, '');

const TYPES: Readonly<Record<string, string>> = {
  int: 'an integer',
  number: 'a number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  object: 'settings as key: value',
  record: 'settings as key: value',
};

/** What was expected instead, in words. A message that a schema brings itself goes before it. */
function expectation(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `expected ${TYPES[isInteger(issue.inst) ? 'int' : issue.expected] ?? issue.expected}`;
    case 'too_small':
      return `expected ${issue.inclusive === false ? 'more than' : 'at least'} ${amount(issue.minimum, issue.origin)}`;
    case 'too_big':
      return `expected ${issue.inclusive === false ? 'less than' : 'at most'} ${amount(issue.maximum, issue.origin)}`;
    case 'not_multiple_of':
      return `expected a multiple of ${issue.divisor}`;
    case 'invalid_value':
      return `expected ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map(String).join(', ')}`;
    case 'invalid_format':
      return `expected text of the form ${issue.pattern ?? issue.format}`;
    case 'invalid_union':
      return unionExpectation(issue.errors ?? []);
    default:
      return 'not a value that can be used here';
  }
}

function isInteger(schema: unknown): boolean {
  const def: object = (schema as z.core.$ZodType | undefined)?._zod.def ?? {};
  return 'format' in def && /int/.test(String(def.format));
}

function amount(limit: number | bigint, origin: string): string {
  if (origin === 'string') return `${limit} ${limit === 1 ? 'character' : 'characters'}`;
  if (origin === 'array') return `${limit} ${limit === 1 ? 'entry' : 'entries'}`;
  return String(limit);
}

function unionExpectation(branches: readonly (readonly z.core.$ZodIssue[])[]): string {
  const expected = branches.flatMap(([first]) => first?.message.replace(/^expected /, '') ?? []);
  return `expected ${[...new Set(expected)].join(' or ')}`;
}
