import { builtin } from '../builtin.ts';
import type { Host } from '../plugin/host.ts';
import { Registry } from '../plugin/registry.ts';
import type { ResolveOptions } from '../plugin/resolve.ts';
import { VERSION } from '../version.ts';

/** What every command needs besides its own arguments. */
export interface Environment {
  readonly host: Host;
  /** The namespace of @llmx/core itself, which plugins given as files import. */
  readonly coreModule: ResolveOptions['coreModule'];
  /** Plugins of components alone that the installation brings along. */
  readonly bundled?: ResolveOptions['bundled'];
}

/** Every component that is there without a configuration. */
export const defaultRegistry = ({ bundled = [] }: Pick<Environment, 'bundled'>): Registry =>
  new Registry([builtin, ...bundled]);

/** The part of resolving a configuration that does not depend on the command. */
export const resolveOptions = ({ host, coreModule, bundled }: Environment): ResolveOptions => ({
  host,
  builtin,
  bundled,
  coreVersion: VERSION,
  coreModule,
});
