import { basename } from 'node:path';

import { checkResumable } from '../config/resumable.ts';
import type { RunConfig } from '../config/schema.ts';
import { LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import type { Resolved } from '../plugin/resolve.ts';
import { HOOK_KINDS, type HookName } from '../plugin/plugin-types.ts';
import { VERSION } from '../version.ts';
import type { Dataset } from './dataset.ts';
import { createManifest, type Manifest } from './manifest.ts';
import type { Session } from './session.ts';

/** run.json of a run that starts now. */
export function describeRun(
  directory: string,
  { resolved, dataset, backend }: Session,
  process: Host['process'],
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
