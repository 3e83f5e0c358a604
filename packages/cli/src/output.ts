import { Writable } from 'node:stream';

/** Whether the command line asks for JSON; what follows `--` are values. */
export function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return (end < 0 ? argv : argv.slice(0, end)).includes('--json');
}

/**
 * Keeps standard output for one line of JSON: what anything else writes there, e.g. a plugin with console.log, goes to
 * standard error from now on.
 */
export function reserveStdout(): void {
  process.stdout.write = ((...args: Parameters<NodeJS.WriteStream['write']>) =>
    process.stderr.write(...args)) as NodeJS.WriteStream['write'];
}

/** Prints one line of JSON to standard output, reserved or not. */
export function printJson(value: unknown): void {
  Writable.prototype.write.call(process.stdout, `${JSON.stringify(value)}\n`, 'utf8');
}
