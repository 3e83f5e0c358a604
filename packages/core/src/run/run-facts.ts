import { basename } from 'node:path';

import { checkResumable } from '../config/resumable.ts';
import type { RunConfig } from '../config/schema.ts';
import { LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import type { Resolved } from '../plugin/resolve.ts';
import { HOOK_KINDS, type HookName } from '../plugin/plugin-types.ts';
import { VERSION } from '../version.ts';
import type { Dataset } from './dataset.ts';
import type { InitialWeights } from './initial-weights.ts';
import { createManifest, type Manifest } from './manifest.ts';
import type { Session } from './session.ts';

/** run.json of a run that starts now. */
export function describeRun(
  directory: string,
  { resolved, dataset, backend }: Session,
  process: Host['process'],
  weights?: InitialWeights,
): Manifest {
  const { config, plugins, hooks } = resolved;
  const names = Object.keys(HOOK_KINDS) as HookName[];
  const order = names.map((name) => [name, hooks.order(name)] as const).filter(([, callers]) => callers.length > 0);
  return createManifest({
    name: basename(directory),
    config: { ...config },
    plugins: plugins.map(({ name, version }) => ({ name, version })),
    hookOrder: Object.fromEntries(order),
    datasets: [{ path: dataset.path, fingerprint: dataset.info.fingerprint }],
    code: { '@llmx/core': VERSION },
    node: process.version,
    backend: { name: backend.name, description: backend.detail },
    ...(weights && {
      initFrom: { checkpoint: weights.checkpoint, step: weights.step, sha256: weights.sha256 },
    }),
  });
}

const mismatch = (message: string, hint: string): LlmxError => new LlmxError('LLMX_RESUME_MISMATCH', message, { hint });

/** A configuration without what names its plugins: where they lie may change, and which they are is compared by version. */
const withoutPlaces = <T>(config: T): T & RunConfig => {
  const { plugins, ...rest } = config as RunConfig;
  return { ...rest, plugins: plugins.map(({ name: _, ...options }) => options) } as unknown as T & RunConfig;
};

/**
 * Fails unless a run can go on under a configuration: the same settings, but for those that may change, and the same
 * plugins.
 *
 * @throws LlmxError `LLMX_RESUME_MISMATCH`
 */
export function checkSettings(manifest: Manifest, { config, plugins }: Resolved): void {
  checkResumable(withoutPlaces(manifest.config), withoutPlaces(config));
  const now = new Map(plugins.map(({ name, version }) => [name, version]));
  for (const { name, version } of manifest.plugins) {
    const current = now.get(name);
    if (current !== version)
      throw mismatch(
        `The run was started with ${name} ${version}, and ${current === undefined ? 'it is not loaded now' : `now it is ${current}`}.`,
        `Install ${name}@${version}, or continue anyway with --allow-changes.`,
      );
  }
}

/**
 * Fails unless the weights are those that the run was started from. Only asked where the run was killed before it had
 * saved its first state.
 *
 * @throws LlmxError `LLMX_RESUME_MISMATCH`
 */
export function checkInitialWeights({ initFrom }: Manifest, weights: InitialWeights | undefined): void {
  if (initFrom === undefined || weights === undefined || initFrom.sha256 === weights.sha256) return;
  throw mismatch(
    `The run was started from the weights of "${initFrom.checkpoint}", step ${initFrom.step}, and "${weights.checkpoint}" has others.`,
    'Start a new run under another --name, or continue anyway with --allow-changes.',
  );
}

/**
 * Fails unless the dataset is the one the run was started with, wherever it lies now.
 *
 * @throws LlmxError `LLMX_RESUME_MISMATCH`
 */
export function checkDataset(manifest: Manifest, { path, info }: Dataset): void {
  const [started] = manifest.datasets;
  if (started === undefined || started.fingerprint === info.fingerprint) return;
  const [before, now] = [started.fingerprint, info.fingerprint].map((hash) => hash.slice(0, 12));
  throw mismatch(
    `The dataset "${path}" is not the one that the run was started with: its fingerprint is ${now}, it was ${before}.`,
    `Name the dataset that was at "${started.path}", or continue anyway with --allow-changes.`,
  );
}
