import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';

import { tableFromIPC } from 'apache-arrow';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import { bytesTokenizer } from './bytes-tokenizer.ts';
import { openDataset } from './llmx-tokens.ts';
import { prepareDataset, type PrepareOptions, type PrepareProgress } from './prepare.ts';

const tokenizer = { name: 'bytes', instance: bytesTokenizer.build({}, { create: () => expect.unreachable() }) };

let root: string;
beforeEach(() => void (root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-prepare-')))));
afterEach(() => fs.rmSync(root, { recursive: true }));

const host = (signal = new AbortController().signal, alive: readonly number[] = []): Host => ({
  cwd: root,
  installRoot: root,
  signal,
  firstParty: {},
  process: {
    pid: 7,
    version: process.version,
    started: 'boot 1',
    hostname: 'here',
    isAlive: (pid) => alive.includes(pid),
  },
  memory: () => ({ residentMiB: 0, peakMiB: 0 }),
  now: () => performance.now(),
  log: () => undefined,
});

/** Creates files from their contents by path. */
function files(contents: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [name, content] of Object.entries(contents)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), content);
  }
}

const prepare = (inputs: readonly string[], options: Partial<PrepareOptions> = {}) =>
  prepareDataset({ inputs, out: 'out', tokenizer, valFraction: 0, host: host(), ...options });

/** Documents of a split of the dataset `out`: text by source, in the order in which they are stored. */
function stored(split = 'train'): [source: string, text: string][] {
  const shards = fs.readdirSync(path.join(root, 'out')).filter((name) => name.startsWith(`${split}-`));
  return shards.flatMap((shard) => {
    const table = tableFromIPC(fs.readFileSync(path.join(root, 'out', shard)));
    return Array.from({ length: table.numRows }, (_, row): [string, string] => {
      const { input_ids: ids, source } = table.get(row)!.toJSON();
      const tokens = ids.toArray() as Uint16Array;
      expect(tokens.at(-1)).toBe(256);
      return [source as string, Buffer.from(tokens.subarray(0, -1)).toString()];
    });
  });
}

/** Code, message and hint of the error, with the folder of the test taken out. */
async function failure(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => 'no error',
    (reason: unknown) => reason,
  );
  if (!LlmxError.is(error)) throw error;
  return `${error.code}: ${error.message} ${error.hint ?? ''}`.replaceAll(root, '');
}

/** Everything below the folder of the test. */
const everything = () => (fs.readdirSync(root, { recursive: true }) as string[]).toSorted();

test('what was prepared is told, and found in the files', async () => {
  files({ 'a.txt': 'zw\u00f6lf', 'b.jsonl': '{"content":"eins"}\n{"content":"zwei"}\n' });
  const { fingerprint, ...summary } = await prepare(['a.txt', 'b.jsonl'], { textField: 'content' });
  expect(stored()).toEqual([
    ['a.txt', 'zw\u00f6lf'],
    ['b.jsonl:1', 'eins'],
    ['b.jsonl:2', 'zwei'],
  ]);
  expect(summary).toEqual({
    directory: path.join(root, 'out'),
    tokenizer: { name: 'bytes', hash: tokenizer.instance.hash },
    vocabSize: 257,
    endOfText: 256,
    splits: { train: { documents: 3, tokens: 17, bytes: 14 } },
  });
  expect(openDataset(path.join(root, 'out')).info.fingerprint).toBe(fingerprint);
});

test('what cannot be prepared leaves nothing', async () => {
  files({ 'empty.txt': '' });
  expect(await failure(prepare(['empty.txt']))).toMatchInlineSnapshot(
    `"LLMX_INPUT_EMPTY: The input holds no text: every document is empty. Name files that hold text."`,
  );
  expect(await failure(prepare(['empty.txt'], { valFraction: 0.6 }))).toMatchInlineSnapshot(
    `"LLMX_USAGE: The validation fraction is 0.6; it must lie between 0 and 0.5. Give another --val-fraction, e.g. 0.1."`,
  );
  expect(await failure(prepare(['empty.txt'], { valFraction: Number.NaN }))).toContain('LLMX_USAGE');
  expect(everything()).toEqual(['empty.txt']);
});

describe('output', () => {
  beforeEach(() => files({ 'in/a.txt': 'a', 'in/b.txt': 'b' }));
  const content = () =>
    fs.readdirSync(path.join(root, 'out')).map((name) => fs.readFileSync(path.join(root, 'out', name), 'hex'));

  test('the same inputs give the same bytes', async () => {
    await prepare(['in'], { valFraction: 0.3 });
    const first = content();
    await prepare(['in'], { valFraction: 0.3, force: true });
    expect(content()).toEqual(first);
  });

  test('an empty folder is used, folders above are created', async () => {
    fs.mkdirSync(path.join(root, 'out'));
    await prepare(['in']);
    await prepare(['in'], { out: 'new/er/out' });
    expect(everything().filter((name) => /partial|replaced/.test(name))).toEqual([]);
    expect(everything()).toContain('new/er/out/dataset.json');
  });

  test('what exists is not touched', async () => {
    files({ 'out/notes.md': 'mine' });
    expect(await failure(prepare(['in']))).toMatchInlineSnapshot(
      `"LLMX_OUTPUT_EXISTS: "/out" exists already and is not a dataset. Choose another --out."`,
    );
    expect(await failure(prepare(['in'], { force: true }))).toContain('LLMX_OUTPUT_EXISTS');
    expect(await failure(prepare(['in'], { out: 'in/a.txt' }))).toMatchInlineSnapshot(
      `"LLMX_OUTPUT_EXISTS: "/in/a.txt" exists already and is not a dataset. Choose another --out."`,
    );
    fs.rmSync(path.join(root, 'out'), { recursive: true });
    await prepare(['in']);
    const before = content();
    expect(await failure(prepare(['in/a.txt']))).toMatchInlineSnapshot(
      `"LLMX_OUTPUT_EXISTS: There is a dataset at "/out" already. Choose another --out, or replace it with --force."`,
    );
    expect(content()).toEqual(before);
    files({ 'out/notes.md': 'mine' });
    expect(await failure(prepare(['in'], { force: true }))).toMatchInlineSnapshot(
      `"LLMX_OUTPUT_EXISTS: "/out" holds a dataset, but also "notes.md". Choose another --out."`,
    );
  });

  test('force replaces a dataset when the new one is complete', async () => {
    await prepare(['in']);
    files({ 'bad.txt': 'a\0' });
    expect(await failure(prepare(['in', 'bad.txt'], { force: true }))).toContain('NUL');
    expect(stored()).toHaveLength(2);
    await prepare(['in/a.txt'], { force: true });
    expect(stored()).toHaveLength(1);
    expect(everything()).toEqual([
      'bad.txt',
      'in',
      'in/a.txt',
      'in/b.txt',
      'out',
      'out/dataset.json',
      'out/train-00000.arrow',
    ]);
  });

  test('a linked folder is filled, not replaced', async () => {
    fs.mkdirSync(path.join(root, 'disk'));
    fs.symlinkSync('disk', path.join(root, 'out'));
    const { directory } = await prepare(['in']);
    expect(directory).toBe(path.join(root, 'disk'));
    expect(fs.lstatSync(path.join(root, 'out')).isSymbolicLink()).toBe(true);
    expect(stored()).toHaveLength(2);
  });

  test('an error leaves nothing behind', async () => {
    files({ 'in/c.txt': 'c\0' });
    const before = everything();
    expect(await failure(prepare(['in'], { out: 'deep/er/out' }))).toContain('LLMX_INPUT_INVALID');
    expect(everything()).toEqual(before);
  });

  test.skipIf(!fs.existsSync('/proc/self'))('a place that can hold no folders', async () => {
    expect(await failure(prepare(['in'], { out: '/proc/no/such' }))).toMatchInlineSnapshot(
      `"LLMX_IO_FAILED: Could not create "/proc/no": no such file or directory (ENOENT). Check that the path is right and that its permissions allow this."`,
    );
  });

  test('what killed processes left is cleared away', async () => {
    files({
      'out.partial-1,boot%201,here/x': '',
      'out.partial-2,boot%201,here/x': '',
      'out.partial-1,boot%201,there/x': '',
    });
    files({ 'out.partial-mine/x': '', 'outer.partial-1,boot%201,here/x': '' });
    await prepare(['in'], { host: host(undefined, [2]) });
    expect(everything().filter((name) => name.startsWith('out') && !name.includes('/'))).toEqual([
      'out',
      'out.partial-1,boot%201,there',
      'out.partial-2,boot%201,here',
      'out.partial-mine',
      'outer.partial-1,boot%201,here',
    ]);
  });

  test('a dataset that was about to be replaced comes back', async () => {
    await prepare(['in']);
    fs.renameSync(path.join(root, 'out'), path.join(root, 'out.replaced-1,boot%201,here'));
    expect(await failure(prepare(['in']))).toContain('LLMX_OUTPUT_EXISTS');
    expect(stored()).toHaveLength(2);
    files({ 'out.replaced-1,boot%201,here/dataset.json': '' });
    await prepare(['in/a.txt'], { force: true });
    expect(everything().filter((name) => name.startsWith('out.'))).toEqual([]);
  });
});

describe('progress and interruption', () => {
  test('progress ends with everything', async () => {
    files({ 'a.txt': '0123456789', 'b.jsonl': '{"text":"abc"}\n' });
    const seen: PrepareProgress[] = [];
    await prepare(['a.txt', 'b.jsonl'], { onProgress: (progress) => seen.push(progress) });
    expect(seen.at(-1)).toEqual({ documents: 2, tokens: 15, bytes: 25, totalBytes: 25 });
    await prepare(['-'], { stdin: Readable.from(['abc']), force: true, onProgress: (progress) => seen.push(progress) });
    expect(seen.at(-1)).toEqual({ documents: 1, tokens: 4, bytes: 3 });
  });

  test('an interruption ends the wait for standard input', async () => {
    const [stdin, controller] = [new PassThrough(), new AbortController()];
    stdin.write('{"text":"eins"}\n{"text":"zwei"}\n');
    const result = failure(prepare(['-'], { stdin, host: host(controller.signal) }));
    while (!everything().some((name) => name.includes('partial'))) await new Promise(setImmediate);
    controller.abort('SIGINT');
    expect(await result).toMatchInlineSnapshot(
      `"LLMX_INTERRUPTED: Data preparation was stopped by SIGINT before it was complete. Nothing was left behind; run the command again."`,
    );
    expect(stdin.destroyed).toBe(true);
    expect(everything()).toEqual([]);
  });

  test('an interruption stops between pieces of files', async () => {
    files({ 'a.txt': 'a', 'b.txt': 'b', 'c.txt': 'c\0' });
    const controller = new AbortController();
    const result = failure(prepare(['a.txt', 'b.txt', 'c.txt'], { host: host(controller.signal) }));
    while (!everything().some((name) => name.includes('partial'))) await new Promise(setImmediate);
    controller.abort('SIGTERM');
    expect(await result).toContain('LLMX_INTERRUPTED: Data preparation was stopped by SIGTERM');
    expect(everything()).toEqual(['a.txt', 'b.txt', 'c.txt']);
  });
});

describe('processes', () => {
  /** A program that prepares `inputs` as `out` and prints the code of the error, if any. */
  const program = (inputs: readonly string[]) => {
    const module = (name: string) => JSON.stringify(new URL(`../../dist/data/${name}.js`, import.meta.url).href);
    return `
      import { bytesTokenizer } from ${module('bytes-tokenizer')};
      import { prepareDataset } from ${module('prepare')};
      const host = {
        cwd: ${JSON.stringify(root)}, signal: new AbortController().signal, now: () => performance.now(),
        process: { pid: process.pid, started: 'boot 1', hostname: 'here', isAlive: () => true },
      };
      const options = { inputs: ${JSON.stringify(inputs)}, out: 'out', host, stdin: process.stdin };
      await prepareDataset({ ...options, tokenizer: { name: 'bytes', instance: bytesTokenizer.build({}) } })
        .catch((error) => console.log(error.code + ': ' + error.message));`;
  };

  test('killed while it writes, it leaves no dataset and stops no later one', async () => {
    files({ 'a.txt': 'a', 'b.txt': 'b' });
    const child = spawn(process.execPath, ['--input-type=module', '-e', program(['a.txt', 'b.txt', '-'])], {
      stdio: ['pipe', 'ignore', 'inherit'],
    });
    while (!everything().some((name) => name.includes('partial')))
      await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const left = everything().find((name) => name.startsWith('out'));
    expect(left).toBe(`out.partial-${child.pid},boot%201,here`);
    await prepare(['a.txt', 'b.txt']);
    expect(everything().filter((name) => name.startsWith('out'))).toEqual([
      'out',
      'out/dataset.json',
      'out/train-00000.arrow',
    ]);
  });

  test.skipIf(os.platform() === 'win32')('a file-size limit is told, and leaves nothing behind', () => {
    files({ 'a.txt': 'a'.repeat(3_000_000), 'b.txt': 'b'.repeat(3_000_000) });
    const command = `ulimit -f 1000 && exec "$0" --input-type=module -e "$1" </dev/null`;
    const output = execFileSync('bash', ['-c', command, process.execPath, program(['a.txt', 'b.txt'])], {
      encoding: 'utf8',
    });
    expect(output.replaceAll(root, '').replace(/partial-\d+/, 'partial-PID')).toMatchInlineSnapshot(`
      "LLMX_DISK_FULL: Could not write "/out/train-00000.arrow": it would exceed the largest file size allowed (EFBIG).
      "
    `);
    expect(everything()).toEqual(['a.txt', 'b.txt']);
  });
});
