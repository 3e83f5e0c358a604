import { LlmxError } from '../errors/index.ts';
import type { Registry } from '../plugin/registry.ts';
import type { Backend, BackendFact, Precision } from '../plugin/backend-types.ts';
import type { Selected } from '../plugin/types.ts';
import { tf } from '../tensor/index.ts';

/** The order in which `auto` tries backends; those that no plugin brings are passed over. */
export const AUTO_ORDER = ['tfjs-node-gpu', 'native', 'tfjs-node', 'wasm', 'cpu'] as const;

export interface ChosenBackend {
  readonly name: string;
  /** One line about it: version, instruction set, device. */
  readonly detail: string;
  readonly built: Backend;
}

/** What a probe found out about a backend. */
export interface ProbedBackend {
  readonly name: string;
  /** One line about it, where it can be used. */
  readonly detail?: string;
  /** Why it cannot be used. */
  readonly reason?: LlmxError;
  /** What else it tells about itself, where it can be used. */
  readonly facts?: readonly BackendFact[];
  /** Kernels of its own machine code, where it tells. */
  readonly nativeKernels?: readonly string[];
}

export interface BackendRequest {
  readonly registry: Registry;
  /** The configuration's choice, or `auto`. */
  readonly selected: Selected;
  readonly precision: Precision;
  readonly resolveFrom: readonly string[];
}

/** Loads one backend and makes it the active one. */
async function activate(request: BackendRequest, selected: Selected): Promise<ChosenBackend> {
  const { registry, precision, resolveFrom } = request;
  const backend = registry.create('backend', selected, { resolveFrom, precision });
  if (!backend.precisions.includes(precision)) throw precisionMissing(request, selected.name);
  const detail = await backend.load();
  if (tf.getBackend() !== backend.tfjsName) await tf.setBackend(backend.tfjsName);
  await tf.ready();
  return { name: selected.name, detail, built: backend };
}

const backendNames = (registry: Registry): string[] =>
  registry.components().flatMap(({ kind, name }) => (kind === 'backend' ? [name] : []));

/** Names of the backends that have the precision asked for. */
const withPrecision = ({ registry, precision, resolveFrom }: BackendRequest): string[] =>
  backendNames(registry).filter((name) =>
    registry.create('backend', { name }, { resolveFrom, precision }).precisions.includes(precision),
  );

function precisionMissing(request: BackendRequest, name: string): LlmxError {
  const { precision } = request;
  const able = withPrecision(request);
  const message =
    able.length > 0
      ? `The backend "${name}" does not compute in ${precision}.`
      : `No installed backend computes in ${precision}.`;
  const instead = able.length > 0 ? `Choose one of the backends that have it: ${able.join(', ')}; or set` : 'Set';
  return new LlmxError('LLMX_PRECISION_UNSUPPORTED', message, { hint: `${instead} precision: fp32.` });
}

async function probe(request: BackendRequest, name: string): Promise<ProbedBackend> {
  try {
    const { detail, built } = await activate(request, { name });
    const nativeKernels = built.nativeKernels?.();
    return { name, detail, facts: built.facts?.() ?? [], ...(nativeKernels && { nativeKernels }) };
  } catch (error) {
    if (!LlmxError.is(error)) throw error;
    return { name, reason: error };
  }
}

/** Every backend that `auto` would try, in order, each with what it tells or the reason why it cannot be used. */
export async function probeBackends(request: BackendRequest): Promise<ProbedBackend[]> {
  const known = new Set(backendNames(request.registry));
  const results: ProbedBackend[] = [];
  for (const name of AUTO_ORDER.filter((candidate) => known.has(candidate))) results.push(await probe(request, name));
  return results;
}

/**
 * Loads the backend that the configuration names, or with `auto` the first of `AUTO_ORDER` that works.
 *
 * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE`, `LLMX_PRECISION_UNSUPPORTED`, `LLMX_COMPONENT_UNKNOWN`
 */
export async function chooseBackend(request: BackendRequest): Promise<ChosenBackend> {
  if (request.selected.name !== 'auto') return activate(request, request.selected);
  const able = new Set(withPrecision(request));
  const candidates = AUTO_ORDER.filter((name) => able.has(name));
  const reasons: string[] = [];
  for (const name of candidates) {
    try {
      return await activate(request, { name });
    } catch (error) {
      if (!LlmxError.is(error) || error.code !== 'LLMX_BACKEND_UNAVAILABLE') throw error;
      reasons.push(error.message);
    }
  }
  if (candidates.length === 0) throw precisionMissing(request, 'auto');
  throw new LlmxError('LLMX_BACKEND_UNAVAILABLE', `No backend works here: ${reasons.join(' ')}`, {
    hint: '`llmx doctor` explains each.',
  });
}
