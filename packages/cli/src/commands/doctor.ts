import { Flags } from '@oclif/core';

import { type BackendReport, backendLines } from '../backend-lines.ts';
import { BaseCommand } from '../base-command.ts';
import { grouped, table } from '../format.ts';
import { describeMachine, type Machine } from '../machine.ts';
import { style } from '../style.ts';

interface Diagnosis {
  readonly llmx: string;
  readonly node: { readonly version: string; readonly required: string; readonly supported: boolean };
  readonly machine: Machine;
  /** In the order in which `auto` tries them. */
  readonly backends: readonly BackendReport[];
  /** The backend that `auto` takes. */
  readonly auto: string | null;
}

export class Doctor extends BaseCommand {
  static override readonly summary = 'Say what this machine has, and which backends work on it and why not.';
  static override readonly flags = {
    kernels: Flags.boolean({ description: 'Name the kernels that are native.' }),
  };

  async run(): Promise<Diagnosis> {
    const { flags } = await this.parse(Doctor);
    const { core, environment } = await this.open();
    const { cwd, installRoot } = environment.host;
    const registry = core.defaultRegistry(environment);
    const resolveFrom = [cwd, installRoot];
    const probed = await core.probeBackends({ registry, selected: { name: 'auto' }, precision: 'fp32', resolveFrom });
    const backends = probed.map(({ name, detail, reason, facts, nativeKernels }) => ({
      name,
      usable: reason === undefined,
      detail: detail ?? reason?.message ?? '',
      hint: reason?.hint,
      precisions: registry.create('backend', { name }, { resolveFrom, precision: 'fp32' }).precisions,
      facts: facts?.length === 0 ? undefined : facts,
      nativeKernels: nativeKernels?.toSorted(),
    }));
    const diagnosis: Diagnosis = {
      llmx: this.config.version,
      // An older one is refused before any command runs.
      node: { version: process.version, required: this.config.pjson.engines?.node ?? '', supported: true },
      machine: describeMachine(),
      backends,
      auto: backends.find(({ usable }) => usable)?.name ?? null,
    };
    this.#print(diagnosis, flags.kernels);
    return diagnosis;
  }

  #print({ llmx, node, machine, backends, auto }: Diagnosis, namesKernels: boolean): void {
    const { platform, arch, cpu, cores, memoryMiB, features } = machine;
    const instructions =
      features === null ? 'not known on this system' : features.join(' ') || 'none of those looked for';
    this.print(
      ...table([
        ['llmx', llmx],
        ['Node', `${node.version}, supported (${node.required})`],
        ['system', `${platform} ${arch}`],
        ['CPU', `${cpu}, ${cores} ${cores === 1 ? 'core' : 'cores'}`],
        ['', instructions],
        ['memory', `${grouped(memoryMiB)} MiB`],
      ]),
      '',
      style('bold', 'Backends, in the order in which "auto" tries them'),
    );
    for (const backend of backends) this.print('', ...backendLines(backend, namesKernels));
    this.print('', auto === null ? 'No backend works here.' : `"auto" takes ${style('bold', auto)}.`);
  }
}
