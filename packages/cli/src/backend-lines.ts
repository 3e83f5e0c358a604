import type { BackendFact } from '@llmx/core';

import { wrappedTable } from './format.ts';
import { style } from './style.ts';

/** What `llmx doctor` found out about a backend. */
export interface BackendReport {
  readonly name: string;
  readonly usable: boolean;
  /** One line about a usable backend, or why it is not usable. */
  readonly detail: string;
  /** What to do about that. */
  readonly hint?: string | undefined;
  readonly precisions: readonly string[];
  /** What a usable backend tells about itself. */
  readonly facts?: readonly BackendFact[] | undefined;
  /** Names of the kernels that are its own machine code, where it tells. */
  readonly nativeKernels?: readonly string[] | undefined;
}

/** What a backend tells about itself, below its own lines. */
function factLines({ facts = [], nativeKernels }: BackendReport, namesKernels: boolean): string[] {
  const count = String(nativeKernels?.length ?? 0);
  const kernels = namesKernels ? [count, ...(nativeKernels ?? [])].join(' ') : `${count} (--kernels names them)`;
  return wrappedTable([
    ...facts.map(({ name, value }) => [`      ${name}`, value]),
    ...(nativeKernels === undefined ? [] : [['      native kernels', kernels]]),
  ]);
}

/** A backend for people; `namesKernels`: with the names of its native kernels. */
export function backendLines(backend: BackendReport, namesKernels: boolean): string[] {
  const { name, usable, detail, hint, precisions } = backend;
  return [
    `${usable ? style('green', '+') : style('dim', '-')} ${style('bold', name)}  ${precisions.join(', ')}`,
    `    ${detail}`,
    ...(hint === undefined ? [] : [`    ${hint}`]),
    ...factLines(backend, namesKernels),
  ];
}
