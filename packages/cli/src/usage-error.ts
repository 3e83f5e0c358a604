import { stripVTControlCharacters } from 'node:util';

import type { LlmxError } from '@llmx/core';
import type { Command } from '@oclif/core';

/** What oclif's parser leaves in its errors. */
interface ParserError extends Error {
  /** Flags that the command does not have. */
  readonly flags?: readonly string[];
  /** Arguments too many, as text, or too few, as the command defines them. */
  readonly args?: readonly (string | { readonly name: string })[];
}

/** A mistake on the command line, as oclif found it, in the words of llmx. */
export async function usageError(error: ParserError, command: typeof Command | undefined): Promise<LlmxError> {
  const { LlmxError, nearest } = await import('@llmx/core');
  const name = command?.id?.replaceAll(':', ' ');
  const help =
    name === undefined ? '`llmx --help` lists the commands.' : `\`llmx ${name} --help\` shows what it takes.`;
  const usage = (message: string, hint = help): LlmxError => new LlmxError('LLMX_USAGE', message, { hint });
  const flag = error.flags?.[0]?.split('=')[0];
  if (flag !== undefined) {
    const near = nearest(flag, ['--json', '--help', ...Object.keys(command?.flags ?? {}).map((known) => `--${known}`)]);
    return usage(`The command "${name}" has no flag "${flag}".`, near === undefined ? help : `Did you mean "${near}"?`);
  }
  const [argument] = error.args ?? [];
  if (typeof argument === 'string') return usage(`The command "${name}" takes no argument "${argument}".`);
  if (argument !== undefined) return usage(`The argument ${argument.name.toUpperCase()} of "${name}" is missing.`);
  return usage(sentence(error.message));
}

/** Lines that oclif puts before the reason. */
const PREAMBLE = /^(The following error|Parsing --|$)/;

/** The reason alone, without oclif's lines around it. */
function sentence(message: string): string {
  const lines = stripVTControlCharacters(message)
    .split('\n')
    .map((line) => line.trim());
  const found = lines.find((line) => !PREAMBLE.test(line)) ?? message;
  const reason = found.replace(/^Missing required flag (\S+)$/, 'The flag --$1 is missing');
  return reason.endsWith('.') ? reason : `${reason}.`;
}
