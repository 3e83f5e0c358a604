import { defaultLoaders } from 'cosmiconfig';

import { LlmxError } from '../errors/index.ts';
import { reasonOf } from './problems.ts';

interface YamlError extends Error {
  readonly reason?: string;
  readonly mark?: { readonly line: number; readonly column: number } | null;
}

/**
 * Parses YAML, and with it JSON; `what` names it in the error.
 *
 * @throws LlmxError `LLMX_CONFIG_INVALID`
 */
export function parseYaml(text: string, what: string): unknown {
  try {
    return defaultLoaders['.yaml'](what, text) as unknown;
  } catch (cause) {
    const { reason, mark } = cause as YamlError;
    const place = mark ? ` at line ${mark.line + 1}, column ${mark.column + 1}` : '';
    throw new LlmxError('LLMX_CONFIG_INVALID', `${what} cannot be parsed${place}: ${reason ?? reasonOf(cause)}.`, {
      hint: 'Mend the syntax there; YAML is indented with spaces, never with tabs.',
      cause,
    });
  }
}
