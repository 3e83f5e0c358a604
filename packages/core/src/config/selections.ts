import { z } from 'zod';

import { LlmxError } from '../errors/index.ts';
import { problemsOf, reasonOf } from './problems.ts';
import type { Selection } from './schema.ts';
import { parseYaml } from './yaml.ts';

const name = z.string().min(1);
const listSchema = z.array(z.union([name.transform((text) => ({ name: text })), z.looseObject({ name })])).min(1);

/**
 * Components that a flag of the command line names: `a`, `a,b` or `{ name: a, option: 1 }`, as a configuration would.
 *
 * @param flag as the user writes it, for the message
 * @throws LlmxError `LLMX_USAGE`
 */
export function parseSelections(text: string, flag: string): readonly Selection[] {
  const refused = (reason: string, cause?: unknown): LlmxError =>
    new LlmxError('LLMX_USAGE', `${flag} ${text} ${reason}.`, {
      hint: `Write ${flag} a,b or ${flag} '{ name: a, option: 1 }'.`,
      cause,
    });
  const { success, data } = listSchema.safeParse(parsed(text, refused));
  if (success) return data;
  throw refused('does not name components');
}

function parsed(text: string, refused: (reason: string, cause: unknown) => LlmxError): unknown {
  try {
    return parseYaml(`[${text}]`, 'The value');
  } catch (cause) {
    throw refused(`is not YAML (${problemsOf(cause).map(reasonOf).join(', ')})`, cause);
  }
}
