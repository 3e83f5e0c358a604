// The one place that names the package manager of this workspace. It comes through npx into npm's own cache, since
// neither a global pnpm nor corepack can be counted on.
import { spawnSync } from 'node:child_process';

export const pnpmVersion = '10.34.9';

/**
 * Runs the pinned pnpm in a folder and waits for it.
 *
 * @param {string[]} args
 * @param {string} cwd
 * @returns {{ ok: boolean, stdout: string, output: string }} `output` is everything it wrote, or why it did not start
 */
export function pnpm(args, cwd) {
  const { status, stdout, stderr, error } = spawnSync(
    'npx',
    ['--yes', `--package=pnpm@${pnpmVersion}`, '--', 'pnpm', ...args],
    {
      cwd,
      encoding: 'utf8',
      maxBuffer: 64 * 2 ** 20,
      stdio: ['ignore', 'pipe', 'pipe'],
      // npx is a .cmd file there, which only a shell can start.
      shell: process.platform === 'win32',
    },
  );
  return { ok: status === 0, stdout: stdout ?? '', output: error ? String(error) : `${stderr}${stdout}` };
}
