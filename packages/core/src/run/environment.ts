import { builtin } from '../builtin.ts';
import type { Host } from '../plugin/host.ts';
import type { ResolveOptions } from '../plugin/resolve.ts';
import { VERSION } from '../version.ts';

/** What every command needs besides its own arguments. */
export interface Environment {
  readonly host: Host;
  /** The namespace of @llmx/core itself, which plugins given as files import. */
  readonly coreModule: ResolveOptions['coreModule'];
}

/** The part of resolving a configuration that does not depend on the command. */
export const resolveOptions = ({ host, coreModule }: Environment): ResolveOptions => ({
  host,
  builtin,
  coreVersion: VERSION,
  coreModule,
});
