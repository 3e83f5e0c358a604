import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { z } from 'zod';

import { replaceFile } from '../checkpoint/durable-file.ts';
import { refuseForeign } from '../checkpoint/layout.ts';
import { LlmxError } from '../errors/index.ts';

const MANIFEST_FILE = 'run.json';

const MIB = 1 << 20;

const machineSchema = z.strictObject({
  platform: z.string(),
  arch: z.string(),
  hostname: z.string(),
  cpu: z.string(),
  /** Logical cores. */
  cores: z.int(),
  memoryMiB: z.int(),
});

const manifestSchema = z.strictObject({
  format: z.literal('llmx-run'),
  version: z.literal(1),
  name: z.string(),
  /** ISO 8601, UTC. */
  createdAt: z.string(),
  /** The resolved configuration. */
  config: z.record(z.string(), z.unknown()),
  plugins: z.array(z.strictObject({ name: z.string(), version: z.string() })).readonly(),
  /** Names of plugins per hook, in calling order. */
  hookOrder: z.record(z.string(), z.array(z.string()).readonly()),
  datasets: z.array(z.strictObject({ path: z.string(), fingerprint: z.string() })).readonly(),
  /** Versions of what ran, by package name. */
  code: z.record(z.string(), z.string()),
  /** Version of Node. */
  node: z.string(),
  machine: machineSchema,
  backend: z.strictObject({ name: z.string(), description: z.string() }),
  /** Where the run's first weights came from: directory of the checkpoint, its step, sha256 of their file. */
  initFrom: z.strictObject({ checkpoint: z.string(), step: z.int(), sha256: z.string() }).optional(),
  /** Result of training; present once the run is finished. */
  result: z.record(z.string(), z.unknown()).optional(),
});

/** Content of run.json. */
export type Manifest = z.infer<typeof manifestSchema>;
/** What the program that starts a run says about it. */
export type RunFacts = Omit<Manifest, 'format' | 'version' | 'createdAt' | 'machine' | 'result'>;

function describeMachine(): Manifest['machine'] {
  const cpus = os.cpus();
  return {
    platform: os.platform(),
    arch: os.arch(),
    hostname: os.hostname(),
    cpu: cpus[0]?.model.trim() ?? 'unknown',
    cores: cpus.length,
    memoryMiB: Math.round(os.totalmem() / MIB),
  };
}

/** The manifest of a run that starts now on this machine. */
export const createManifest = (facts: RunFacts): Manifest => ({
  format: 'llmx-run',
  version: 1,
  createdAt: new Date().toISOString(),
  ...facts,
  machine: describeMachine(),
});

/** A run's run.json. */
export const manifestPath = (directory: string): string => path.join(directory, MANIFEST_FILE);

/**
 * Writes run.json, whole or not at all.
 *
 * @throws LlmxError `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export const writeManifest = (directory: string, manifest: Manifest): void =>
  replaceFile(manifestPath(directory), `${JSON.stringify(manifest, null, 2)}\n`);

/** Whether a directory is a run's. */
export const isRun = (directory: string): boolean => fs.existsSync(manifestPath(directory));

/**
 * @throws LlmxError `LLMX_RUN_MISSING`, or `LLMX_RUN_DAMAGED` if run.json is not what llmx writes
 */
export function readManifest(directory: string): Manifest {
  const file = manifestPath(directory);
  refuseForeign(file, 'file');
  if (!isRun(directory)) {
    const hint = 'Name the directory of a run, e.g. runs/<name>.';
    throw new LlmxError('LLMX_RUN_MISSING', `There is no run in "${directory}".`, { hint });
  }
  try {
    return manifestSchema.parse(JSON.parse(fs.readFileSync(file, 'utf8')));
  } catch (cause) {
    const issue = cause instanceof z.ZodError ? cause.issues[0] : undefined;
    const reason = issue === undefined ? String(cause) : `${issue.path.join('.')}: ${issue.message}`;
    throw new LlmxError('LLMX_RUN_DAMAGED', `"${file}" cannot be read as the description of a run: ${reason}.`, {
      hint: 'Restore the file, or use the version of llmx that wrote it.',
      cause,
    });
  }
}
