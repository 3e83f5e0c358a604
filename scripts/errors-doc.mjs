// `npm run docs:errors`: writes docs/reference/errors.md from the list of error codes.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
export const errorsPageFile = path.join(root, 'docs', 'reference', 'errors.md');

const EXIT_STATUS = { user: '2', failure: '1', interrupt: '130 (SIGINT) or 143 (SIGTERM)' };

const INTRODUCTION = `# Errors

Every error of llmx has a code, a sentence that says what happened and, where there is one, a hint that says what to do.
With \`--json\` a command prints it as \`{ "error": { "code", "message", "hint" } }\`. Codes are permanent: they are added,
never renamed or used again. The exit status says whose turn it is:

- 2: the input, the configuration or a limit of the machine needs a change by the user.
- 1: the run itself failed.
- 130, 143: a signal asked the command to stop.
`;

/**
 * The page for a list of codes.
 *
 * @param {Readonly<Record<string, { kind: string, when: string }>>} codes
 * @returns {string}
 */
export function errorsPage(codes) {
  const entries = Object.entries(codes).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const sections = entries.map(([code, { kind, when }]) => `## ${code}\n\nExit status ${EXIT_STATUS[kind]}. ${when}\n`);
  return [INTRODUCTION, ...sections].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { ERROR_CODES } = await import('../packages/core/dist/errors/index.js');
  fs.mkdirSync(path.dirname(errorsPageFile), { recursive: true });
  fs.writeFileSync(errorsPageFile, errorsPage(ERROR_CODES));
}
