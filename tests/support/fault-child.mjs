// A process that trains or continues a run, with a fault: `node fault-child.mjs <folder> <config> <name>`, the fault as
// JSON in LLMX_FAULT. It writes a letter for what happens: S started, s a step, e a batch of evaluation.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import threads from 'node:worker_threads';

import { failAt, killAt, setClockBack } from './fault-injection.mjs';

const [folder, file, name] = process.argv.slice(2);
const fault = JSON.parse(process.env['LLMX_FAULT'] ?? 'null');
const write = fs.writeSync.bind(fs);

const { Worker } = threads;
threads.Worker = class extends Worker {
  constructor(url, options) {
    const writes = String(url).includes('/checkpoint/');
    super(writes ? new URL('fault-worker.mjs', import.meta.url) : url, {
      ...options,
      ...(writes && { workerData: { module: String(url) } }),
    });
  }
};
syncBuiltinESMExports();

let isStarted = false;
const directory = path.join(folder, 'runs', name);
if (fault?.phase === 'read') killAt(fault, (call) => call.name === 'readSync' && call.path.endsWith('.arrow'));
if (fault?.phase === 'metrics')
  killAt(fault, (call) => call.name === 'writeSync' && call.path.endsWith('metrics.jsonl'));
if (fault?.phase === 'resume') killAt(fault, (call) => !isStarted && call.path.startsWith(directory));
const { phase } = fault ?? {};
if (phase === 'unreadable data')
  failAt('EIO', (call) => call.name === 'readSync' && call.path.endsWith('.arrow') && isStarted);
if (phase === 'unreadable checkpoint')
  failAt('EIO', (call) => call.name === 'readSync' && call.path.endsWith('optimizer.safetensors'));
if (phase === 'full metrics') {
  let lines = 0;
  const isLine = (call) => call.name === 'writeSync' && call.path.endsWith('metrics.jsonl');
  failAt('ENOSPC', (call) => isLine(call) && ++lines >= fault.count);
}
if (phase === 'clock') setClockBack();

const core = await import('@llmx/core');
const tell = (letter) => write(1, letter);
// A real process's identity, so that its lock is taken over when it is dead.
const { bundledPlugins } = await import('../../packages/cli/dist/first-party.js');
const { createHost } = await import('../../packages/cli/dist/host.js');
const { interruptSignal } = await import('../../packages/cli/dist/interrupt.js');
const signal = interruptSignal(() => undefined);
const host = { ...createHost({ signal, log: () => undefined }), cwd: folder, installRoot: folder };
const onEvent = ({ kind }) => {
  if (kind === 'started') isStarted = true;
  const letter = { started: 'S', step: 's', evaluating: 'e' }[kind];
  if (letter !== undefined) tell(letter);
};
try {
  await core.train({ file, name, resume: true, onEvent }, { host, coreModule: core, bundled: await bundledPlugins() });
} catch (error) {
  write(2, `${error.code ?? ''} ${error.message}\n`);
  process.exitCode = 3;
}
