// `npm run setup`: installs the locked dependencies and builds the packages; when nothing changed, it only looks.
// --quiet: prints nothing when there is nothing to do. Needs nothing but Node and npm.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { pnpm, pnpmVersion } from './pnpm.mjs';

const MINIMUM = [20, 19];
const root = fileURLToPath(new URL('..', import.meta.url));
const quiet = process.argv.includes('--quiet');
const started = Date.now();
const stateFolder = path.join(root, 'node_modules', '.llmx-setup');
const stampFile = path.join(stateFolder, 'installed');
const lockFile = path.join(stateFolder, 'lock');

/** Ends the program with a sentence for the user. */
function stop(status, message) {
  console.error(message);
  process.exit(status);
}

function requireNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1])) return;
  stop(
    2,
    `llmx needs Node ${MINIMUM.join('.')} or newer, and this is ${process.version}; get one at https://nodejs.org.`,
  );
}

const packageFolders = () =>
  fs
    .readdirSync(path.join(root, 'packages'))
    .toSorted()
    .map((name) => path.join(root, 'packages', name))
    .concat(path.join(root, 'examples'))
    .filter((folder) => fs.existsSync(path.join(folder, 'package.json')));

/** A hash over everything that decides what an installation holds. The root counts: pnpm's links name it. */
function wantedInstallation(folders) {
  const hash = createHash('sha256');
  hash.update(JSON.stringify([pnpmVersion, process.versions.modules, process.platform, process.arch, root]));
  const files = ['pnpm-lock.yaml', 'pnpm-workspace.yaml', 'package.json'].map((name) => path.join(root, name));
  for (const file of [...files, ...folders.map((folder) => path.join(folder, 'package.json'))]) {
    hash.update(`\0${file}\0`).update(fs.readFileSync(file));
  }
  return hash.digest('hex');
}

function isInstalled(wanted, folders) {
  const linked = folders.every((folder) => fs.existsSync(path.join(folder, 'node_modules')));
  return linked && fs.existsSync(stampFile) && fs.readFileSync(stampFile, 'utf8') === wanted;
}

function install(wanted) {
  console.log(`Installing the dependencies with pnpm ${pnpmVersion}; the first time may take a minute ...`);
  fs.rmSync(stampFile, { force: true });
  // --prod=false: tools are development dependencies, needed under NODE_ENV=production too.
  const flags = ['--frozen-lockfile', '--prefer-offline', '--prod=false', '--config.confirm-modules-purge=false'];
  const { ok, output } = pnpm(['install', ...flags, '--reporter=append-only'], root);
  if (!ok) stop(1, `${output.trim()}\n\nSet-up failed: the dependencies could not be installed. ${adviceFor(output)}`);
  // Written last: an interrupted installation leaves no stamp, so that the next set-up repeats it.
  fs.mkdirSync(stateFolder, { recursive: true });
  fs.writeFileSync(stampFile, wanted);
}

function adviceFor(output) {
  if (output.includes('OUTDATED_LOCKFILE')) {
    return `pnpm-lock.yaml does not fit the package.json files; bring it up to date with \`npx pnpm@${pnpmVersion} install\`.`;
  }
  if (output.includes('ENOENT') && output.includes('npx')) return 'npx was not found; it comes with npm: install npm.';
  if (output.includes('ENOSPC')) return 'The disk is full; make room and run `npm run setup` again.';
  return 'Check the network, proxy and registry (`npm config get registry`), then run `npm run setup` again.';
}

/** TypeScript's build mode decides by itself what is out of date. */
function build() {
  const { status } = spawnSync(process.execPath, [path.join(root, 'scripts', 'build.mjs')], { stdio: 'inherit' });
  if (status !== 0) stop(1, 'Set-up failed: the packages could not be built; the messages above name the places.');
}

function isAlive(pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Waits for another set-up of this folder; the lock of a process that is gone is taken over. */
async function lock() {
  fs.mkdirSync(stateFolder, { recursive: true });
  const own = `${lockFile}.${process.pid}`;
  for (let attempt = 0; !tryLock(own); attempt++) await waitFor(attempt);
  process.on('exit', () => fs.rmSync(lockFile, { force: true }));
}

/** A link appears with its content, where a new file would be empty for a moment. */
function tryLock(own) {
  fs.writeFileSync(own, String(process.pid));
  try {
    fs.linkSync(own, lockFile);
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  } finally {
    fs.rmSync(own);
  }
}

async function waitFor(attempt) {
  const owner = lockOwner();
  if (owner === undefined) return;
  if (!isAlive(owner)) return fs.rmSync(lockFile, { force: true });
  if (attempt === 0) {
    console.error(`Waiting for another set-up, process ${owner}; if there is none, delete ${lockFile}.`);
  }
  await sleep(200);
}

/** The process that holds the lock, if it is held. */
function lockOwner() {
  try {
    return Number(fs.readFileSync(lockFile, 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return undefined;
  }
}

requireNode();
try {
  await lock();
  const folders = packageFolders();
  const wanted = wantedInstallation(folders);
  const installed = isInstalled(wanted, folders);
  if (!installed) install(wanted);
  build();
  if (!quiet || !installed) console.log(`Set up in ${((Date.now() - started) / 1000).toFixed(1)} s.`);
} catch (error) {
  stop(1, `Set-up failed: ${error.message}. Mend that, then run \`npm run setup\` again.`);
}
