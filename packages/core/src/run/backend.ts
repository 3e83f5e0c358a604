import { chooseBackend, type ChosenBackend } from '../backend/index.ts';
import type { Host } from '../plugin/host.ts';
import type { Resolved } from '../plugin/resolve.ts';

/**
 * Loads the configured backend and tells the plugins.
 *
 * @param name of a backend to use instead of the configured one
 * @throws LlmxError `LLMX_BACKEND_UNAVAILABLE`, `LLMX_PRECISION_UNSUPPORTED`, `LLMX_COMPONENT_UNKNOWN`, and what
 *   `backendReady` hooks throw
 */
export async function loadBackend(
  { config, registry, hooks }: Resolved,
  host: Host,
  name: string | undefined,
): Promise<ChosenBackend> {
  const { precision } = config;
  const backend = await chooseBackend({
    registry,
    selected: name === undefined || name === config.backend.name ? config.backend : { name },
    precision,
    resolveFrom: [host.cwd, host.installRoot],
  });
  await hooks.series('backendReady', { backend: backend.name, precision });
  return backend;
}
