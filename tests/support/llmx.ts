// Runs the command line as child processes.
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const PROGRAM = fileURLToPath(new URL('../../packages/cli/bin/llmx.js', import.meta.url));

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Outcome>;
  /** What it has written to standard error so far. */
  stderr(): string;
}

/** Starts llmx, or another `command`, with arguments; `input` is its standard input. */
export function start(
  cwd: string,
  args: readonly string[],
  {
    command = process.execPath,
    env = {},
    input = '',
  }: { command?: string; env?: NodeJS.ProcessEnv; input?: string } = {},
): Running {
  // NODE_PATH, which pnpm's own commands set, would make every package of the workspace seem installed.
  const { NODE_ENV: _, NODE_PATH: _path, ...inherited } = process.env;
  const options = { cwd, env: { ...inherited, ...env } };
  const child = spawn(command, command === process.execPath ? [PROGRAM, ...args] : args, options);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined).end(input); // not every command reads
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject).on('close', (status) => resolve({ status, stdout, stderr }));
  });
  return { child, ended, stderr: () => stderr };
}

/** Runs a command to its end. */
export const llmx = (cwd: string, ...args: string[]): Promise<Outcome> => start(cwd, args).ended;
