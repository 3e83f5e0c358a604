#!/usr/bin/env node
// Plain JavaScript of old, so that a Node that is too old for the rest can still say so.
const MINIMUM = [20, 19];
const [major, minor] = process.versions.node.split('.').map(Number);
if (major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1])) {
  // Node 22 and newer keep compiled code between starts.
  const { default: module } = await import('node:module');
  module.enableCompileCache?.();
  await import('../dist/main.js');
} else {
  console.error(`llmx needs Node ${MINIMUM.join('.')} or newer, and this is ${process.version}.`);
  console.error('Get a newer one at https://nodejs.org.');
  process.exitCode = 2;
}
