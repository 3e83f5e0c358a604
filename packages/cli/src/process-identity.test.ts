import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

import { expect, test } from 'vitest';

import { isAlive, processStart } from './process-identity.ts';

async function idle(): Promise<{ child: ChildProcess; pid: number }> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1000)']);
  await once(child, 'spawn');
  return { child, pid: child.pid ?? 0 };
}

test('a process is alive until it ends, and known by its start', async () => {
  const { child, pid } = await idle();
  const started = processStart(pid);
  expect(isAlive(pid, started)).toBe(true);
  expect(isAlive(pid, 'another start')).toBe(false); // the pid is used again
  child.kill('SIGKILL');
  await once(child, 'close');
  expect(isAlive(pid, started)).toBe(false);
});

test('two processes have two starts, one process has one', async () => {
  const { child, pid } = await idle();
  expect(processStart(pid)).not.toBe(processStart(process.pid));
  expect(processStart(process.pid)).toBe(processStart(process.pid));
  child.kill('SIGKILL');
});

test.skipIf(process.platform !== 'linux')(
  'a process that has ended is not alive, even if nobody asked how',
  async () => {
    // The shell becomes a program that does not wait for the other one.
    const parent = spawn('sh', ['-c', 'sleep 0.2 & echo $!; exec sleep 60']);
    const [line] = (await once(parent.stdout.setEncoding('utf8'), 'data')) as [string];
    const pid = Number(line);
    const started = processStart(pid);
    expect(isAlive(pid, started)).toBe(true);
    while (isAlive(pid, started)) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(process.kill(pid, 0)).toBe(true); // it is still in the table of processes
    parent.kill('SIGKILL');
  },
);
