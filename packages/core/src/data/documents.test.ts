import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { LlmxError } from '../errors/index.ts';
import { type DocumentOptions, readDocuments } from './documents.ts';
import { listInputs } from './inputs.ts';

let root: string;
beforeEach(() => void (root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'llmx-documents-')))));
afterEach(() => fs.rmSync(root, { recursive: true }));

/** Creates files from their contents by path. */
function files(contents: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [name, content] of Object.entries(contents)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), content);
  }
}

/** Sources and texts of all documents. */
async function read(given: readonly string[], options: Partial<DocumentOptions> = {}): Promise<[string, string][]> {
  const documents: [string, string][] = [];
  const { signal } = new AbortController();
  const inputs = await listInputs(given, root);
  for await (const { source, text } of readDocuments(inputs, {
    textField: 'text',
    signal,
    onBytes: () => undefined,
    ...options,
  }))
    documents.push([source, Buffer.from(text).toString()]);
  return documents;
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

describe('inputs', () => {
  test('folders are walked in order of names, for three extensions', async () => {
    files({
      'in/b.txt': 'b',
      'in/a/z.md': 'z',
      'in/a/y.TXT': 'y',
      'in/c.jsonl': '{"text":"c1"}\n{"text":"c2"}\n',
      'in/d.csv': 'no',
      'in/.git/e.txt': 'no',
      'in/.f.txt': 'no',
      'elsewhere/linked.txt': 'l',
    });
    fs.symlinkSync('../elsewhere/linked.txt', path.join(root, 'in/link.txt'));
    fs.symlinkSync('..', path.join(root, 'in/loop'));
    expect(await read(['in'])).toEqual([
      ['in/a/y.TXT', 'y'],
      ['in/a/z.md', 'z'],
      ['in/b.txt', 'b'],
      ['in/c.jsonl:1', 'c1'],
      ['in/c.jsonl:2', 'c2'],
      ['in/link.txt', 'l'],
    ]);
  });

  test('what is named twice is read once', async () => {
    files({ 'in/a.txt': 'a', 'in/b.txt': 'b' });
    expect(await read(['in/b.txt', 'in', './in/a.txt', path.join(root, 'in'), 'in/*.txt'])).toEqual([
      ['in/b.txt', 'b'],
      ['in/a.txt', 'a'],
    ]);
  });

  test('globs take what they match', async () => {
    files({ 'in/a.txt': 'a', 'in/b.md': 'b', 'in/deep/c.txt': 'c', 'in/[x].txt': 'x' });
    expect((await read(['in/**/*.txt'])).map(([source]) => source)).toEqual([
      'in/[x].txt',
      'in/a.txt',
      'in/deep/c.txt',
    ]);
    expect(await read(['in/[x].txt'])).toEqual([['in/[x].txt', 'x']]);
  });

  test('inputs that give nothing', async () => {
    files({
      'in/a.pdf': 'a',
      'none/x.csv': 'x',
      'empty.txt': '',
      'mark.txt': '\uFEFF',
      'lines.jsonl': '{"text":""}\n\n \n',
    });
    expect(await failure(read(['in/a.pdf']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "in/a.pdf" is not a .txt, .md or .jsonl file. Name only such files, narrow the glob, or name a folder, of which only they are taken."`,
    );
    expect(await failure(read(['in/*']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "in/a.pdf" is not a .txt, .md or .jsonl file. Name only such files, narrow the glob, or name a folder, of which only they are taken."`,
    );
    expect(await failure(read(['in/*.txt']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_EMPTY: No file in "" matches "in/*.txt". Check the pattern."`,
    );
    expect(await failure(read(['none']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_EMPTY: The folder "none" holds no .txt, .md or .jsonl files. Name another folder, or the files themselves."`,
    );
    expect(await failure(read(['nowhere.txt']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_MISSING: There is no file or folder "nowhere.txt" in "". Check the path; put globs in quotes, so that the shell hands them on as they are."`,
    );
    expect(await read(['empty.txt', 'mark.txt', 'lines.jsonl'])).toEqual([]);
  });

  test('links that lead nowhere', async () => {
    fs.mkdirSync(path.join(root, 'in'));
    fs.symlinkSync('nowhere', path.join(root, 'in/link.txt'));
    expect(await failure(read(['in']))).toMatchInlineSnapshot(
      `"LLMX_IO_FAILED: Could not read "in/link.txt": no such file or directory (ENOENT). Check that the path is right and that its permissions allow this."`,
    );
  });

  test('a text larger than a gibibyte is refused without reading it', async () => {
    files({ 'large.txt': '' });
    fs.truncateSync(path.join(root, 'large.txt'), 2 ** 30 + 1);
    expect(await failure(read(['large.txt']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "large.txt" is larger than 1024 MiB, the most that is read as one document. Cut it into several documents."`,
    );
  });
});

describe('text', () => {
  test('byte order marks are dropped, all else is kept', async () => {
    files({ 'a.txt': '\uFEFF\r\n zwölf 😀\n', 'b.jsonl': '\uFEFF{"text":"eins"}' });
    expect(await read(['a.txt', 'b.jsonl'])).toEqual([
      ['a.txt', '\r\n zwölf 😀\n'],
      ['b.jsonl:1', 'eins'],
    ]);
  });

  test('binary files and other encodings', async () => {
    files({
      'nul.txt': 'ab\0c',
      'latin.md': Buffer.from('caf\u00e9 noir', 'latin1'),
      'nul.jsonl': '{"text":"a"}\n{"text":"\0"}',
      'latin.jsonl': Buffer.from('{"text":"a"}\n{"text":"\u00e9"}', 'latin1'),
    });
    expect(await failure(read(['nul.txt']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "nul.txt" is not a text file: it holds a NUL byte at byte 2. Give text in UTF-8."`,
    );
    expect(await failure(read(['latin.md']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "latin.md" is not a text file: it is not valid UTF-8 at byte 3. Give text in UTF-8."`,
    );
    expect(await failure(read(['nul.jsonl']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "nul.jsonl" is not a text file: it holds a NUL byte at byte 22. Give text in UTF-8."`,
    );
    expect(await failure(read(['latin.jsonl']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "latin.jsonl" is not a text file: it is not valid UTF-8 at byte 22. Give text in UTF-8."`,
    );
  });

  test('lines of all kinds', async () => {
    const long = 'lang '.repeat(700_000);
    files({
      'a.jsonl': `{"text":"eins"}\r\n\n  \r\n{"n":1,"text":"zw\\u00f6lf\\n"}\n{"text":"${long}"}\n{"text":"last"}`,
    });
    expect(await read(['a.jsonl'])).toEqual([
      ['a.jsonl:1', 'eins'],
      ['a.jsonl:4', 'zwölf\n'],
      ['a.jsonl:5', long],
      ['a.jsonl:6', 'last'],
    ]);
  });

  test('another field', async () => {
    files({ 'a.jsonl': '{"content":"eins","text":5}\n' });
    expect(await read(['a.jsonl'], { textField: 'content' })).toEqual([['a.jsonl:1', 'eins']]);
  });

  test('lines that hold no text', async () => {
    const told = (line: string) => {
      files({ 'a.jsonl': `{"text":"eins"}\n${line}\n` });
      return failure(read(['a.jsonl']));
    };
    expect(await told('{"text":"cut')).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "a.jsonl" line 2 is not valid JSON. Mend or remove the line."`,
    );
    expect(await told('["text"]')).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "a.jsonl" line 2 is not a JSON object. Each line should be an object with the text under "text"."`,
    );
    expect(await told('{"txt":"a","id":1}')).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: "a.jsonl" line 2 has no field "text". Name the field with --text-field. Did you mean "txt"?"`,
    );
    expect(await told('{"text":null}')).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: The field "text" of "a.jsonl" line 2 is not a string. Name another --text-field."`,
    );
    expect(await told('{"text":"\\ud83d"}')).toMatchInlineSnapshot(
      `"LLMX_INPUT_INVALID: The text of "a.jsonl" line 2 holds half of a surrogate pair. Mend or remove the line."`,
    );
    expect(await told('{"__proto__":{"text":"a"}}')).toContain('has no field "text"');
  });
});

describe('standard input', () => {
  const piped = (...chunks: (string | Uint8Array)[]) => read(['-'], { stdin: Readable.from(chunks) });

  test('is JSONL if it starts with a brace', async () => {
    expect(await piped('\n ', ' {"te', 'xt":"eins"}\n{"text"', ':"zwei"}')).toEqual([
      ['stdin:2', 'eins'],
      ['stdin:3', 'zwei'],
    ]);
  });

  test('is one text otherwise', async () => {
    const text = Buffer.from('zwölf {}\n');
    expect(await piped(text.subarray(0, 3), text.subarray(3))).toEqual([['stdin', 'zwölf {}\n']]);
  });

  test('a byte order mark does not hide the brace', async () => {
    const marked = Buffer.from('\uFEFF{"text":"eins"}');
    expect(await piped(marked)).toEqual([['stdin:1', 'eins']]);
    expect(await piped(...Array.from(marked, (byte) => Uint8Array.of(byte)))).toEqual([['stdin:1', 'eins']]);
    expect(await piped('{', '"text":"eins"}')).toEqual([['stdin:1', 'eins']]);
    expect(await piped('a')).toEqual([['stdin', 'a']]);
  });

  test('nothing, and none', async () => {
    expect(await piped()).toEqual([]);
    expect(await failure(read(['-']))).toMatchInlineSnapshot(
      `"LLMX_INPUT_MISSING: There is no standard input, which "-" stands for. Pipe text into the command, or name files."`,
    );
  });
});
