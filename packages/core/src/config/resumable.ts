import { LlmxError } from '../errors/index.ts';
import { show } from './problems.ts';
import { isTree } from './tree.ts';

/** Settings that a resumed run may change; those below them too. The dataset itself is compared by its fingerprint. */
export const RESUMABLE_CHANGES: readonly string[] = [
  'train.steps',
  'train.maxTime',
  'train.maxMemory',
  'train.watchdog',
  'train.tokens',
  'train.evalEvery',
  'train.evalTokens',
  'train.sample',
  'train.checkpointEvery',
  'train.logEvery',
  'train.keepLast',
  'train.keepBest',
  'train.keepEvery',
  'backend.threads',
  'data.train',
  'sinks',
];

export interface ConfigDifference {
  readonly path: string;
  /** `undefined` where a configuration does not have the setting. */
  readonly before: unknown;
  readonly after: unknown;
}

/** The settings in which two resolved configurations differ. */
export function configDifferences(before: unknown, after: unknown, path = ''): ConfigDifference[] {
  const bothTrees = isTree(before) && isTree(after);
  if (!bothTrees && !(Array.isArray(before) && Array.isArray(after))) {
    return Object.is(before, after) ? [] : [{ path, before, after }];
  }
  const [left, right] = [before, after] as Record<string, unknown>[];
  const keys = new Set([...Object.keys(left ?? {}), ...Object.keys(right ?? {})]);
  return [...keys].flatMap((key) => configDifferences(left?.[key], right?.[key], path === '' ? key : `${path}.${key}`));
}

/**
 * Checks that a run with the resolved configuration `before` can go on under `after`: data, model and optimization must
 * be the same.
 *
 * @throws LlmxError `LLMX_RESUME_MISMATCH` naming every setting that differs
 */
export function checkResumable(before: object, after: object, allowed: readonly string[] = RESUMABLE_CHANGES): void {
  const isAllowed = (path: string): boolean => allowed.some((free) => path === free || path.startsWith(`${free}.`));
  const differences = configDifferences(before, after).filter(({ path }) => !isAllowed(path));
  if (differences.length === 0) return;
  const list = differences.map(
    ({ path, before: was, after: is }) => `${path} was ${stated(was)} and is now ${stated(is)}`,
  );
  throw new LlmxError('LLMX_RESUME_MISMATCH', `The run was started with other settings: ${list.join('; ')}.`, {
    hint: 'Take these settings back, start a new run under another --name, or continue anyway with --allow-changes.',
  });
}

const stated = (value: unknown): string => (value === undefined ? 'not set' : show(value));
