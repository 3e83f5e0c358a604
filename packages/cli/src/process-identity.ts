import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

/** A process whose start the system does not tell. */
const UNKNOWN = 'unknown';

/** A process that has ended, but that its parent has not asked about yet. */
const ENDED = 'ended';

/** Fields 3 and 22 of /proc/<pid>/stat, counted from behind the name, which may hold anything. */
const STATE_FIELD = 0;
const START_FIELD = 19;

const readText = (file: string): string | undefined => {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
};

/** Ticks from the boot of the machine to the start of the process, with the boot's id. */
function startOnLinux(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (['Z', 'X'].includes(fields?.[STATE_FIELD] ?? '')) return ENDED;
  const ticks = fields?.[START_FIELD];
  const boot = readText('/proc/sys/kernel/random/boot_id')?.trim();
  return ticks === undefined || boot === undefined ? undefined : `${boot} ${ticks}`;
}

function startByPs(pid: number): string | undefined {
  const { stdout } = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
  });
  return stdout?.trim() || undefined;
}

/** An id of the start of a process, which differs where a pid is used again. */
export const processStart = (pid: number): string =>
  (process.platform === 'linux' ? startOnLinux(pid) : startByPs(pid)) ?? UNKNOWN;

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Whether the process with this pid and start runs; where starts are not known, any process of that pid is taken for it. */
export function isAlive(pid: number, started: string): boolean {
  if (!exists(pid)) return false;
  const now = processStart(pid);
  if (now === ENDED) return false;
  return now === started || now === UNKNOWN || started === UNKNOWN;
}
