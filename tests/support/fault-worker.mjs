// Stands in for the thread that writes checkpoints: injects the fault, then runs the thread's own module.
import { workerData } from 'node:worker_threads';

import { failAt, interceptFiles, killAt, setClockBack } from './fault-injection.mjs';

const fault = JSON.parse(process.env['LLMX_FAULT'] ?? 'null');
if (fault?.phase === 'checkpoint') killAt(fault, () => true);
if (fault?.phase === 'crash')
  interceptFiles(({ name, args, original }) => {
    if (name === 'renameSync') process.exit(1); // of the thread
    return original(...args);
  });
if (fault?.phase === 'flip') {
  let writes = 0;
  interceptFiles(({ name, args, original }) => {
    if (name !== 'writeSync' || ++writes !== fault.count) return original(...args);
    const copy = Uint8Array.from(args[1]);
    copy[copy.length >> 1] ^= 1;
    return original(args[0], copy, ...args.slice(2));
  });
}
if (fault?.phase === 'full disk') {
  let writes = 0;
  failAt('ENOSPC', (call) => call.name === 'writeSync' && ++writes >= fault.count);
}
if (fault?.phase === 'unreadable copy')
  failAt('EIO', (call) => call.name === 'readSync' && call.path.includes('.partial-step-00000006'));
if (fault?.phase === 'clock') setClockBack();
await import(workerData.module);
