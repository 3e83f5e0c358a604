import { run, settings } from '@oclif/core';

import { checkCommand } from './check-command.ts';
import { reportFailure } from './failure.ts';
import { wantsJson } from './output.ts';

const [first, ...rest] = process.argv.slice(2);
const argv = first === 'help' ? [...rest, '--help'] : process.argv.slice(2);

async function fail(error: unknown): Promise<void> {
  process.exitCode = await reportFailure(error, { json: wantsJson(argv) });
}

async function failAndExit(error: unknown): Promise<void> {
  try {
    await fail(error);
  } finally {
    process.exit(process.exitCode ?? 1);
  }
}

// What dependencies have deprecated is no news for users.
process.noDeprecation = true;
// TensorFlow's C library greets with its instruction sets otherwise.
process.env['TF_CPP_MIN_LOG_LEVEL'] ??= '2';
// Commands are compiled; under some values of NODE_ENV oclif would look for their sources.
settings.enableAutoTranspile = false;
// Without it oclif looks the shell up in the list of users, in which users of containers need not be.
if (process.platform !== 'win32') process.env['SHELL'] ??= '/bin/sh';
// A reader that has seen enough (`| head`) ends no training; oclif does this for standard output.
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
process.on('uncaughtException', (error) => void failAndExit(error));

try {
  await checkCommand(argv);
  await run(argv, import.meta.url);
} catch (error) {
  await fail(error);
}
