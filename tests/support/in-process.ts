// Training within the test's own process, on data prepared from texts.
import fs from 'node:fs';
import path from 'node:path';

import * as core from '@llmx/core';

/** The surroundings of runs below `folder`; warnings go to `warn`. */
export function environment(
  folder: string,
  bundled: readonly core.Plugin[],
  { signal = new AbortController().signal, warn = (_message: string): void => undefined } = {},
): core.Environment {
  const process = { pid: 1, version: 'v20.19.0', started: '0', hostname: 'test', isAlive: () => false };
  const memory = () => ({ residentMiB: 1, peakMiB: 2 });
  const log = (_level: string, message: string) => warn(message);
  const host = {
    cwd: folder,
    installRoot: folder,
    signal,
    firstParty: {},
    process,
    memory,
    now: () => performance.now(),
    log,
  };
  return { host, coreModule: core, bundled };
}

/** Prepares texts, a document each, as a dataset below the folder of `surroundings`. */
export async function prepareTexts(
  { host, bundled = [] }: core.Environment,
  texts: readonly string[],
  { out = 'data', tokenizer = 'bytes' } = {},
): Promise<void> {
  const input = path.join(host.cwd, `${out}-texts`);
  fs.mkdirSync(input);
  texts.forEach((text, index) => fs.writeFileSync(path.join(input, `${index}.txt`), text));
  const instance = new core.Registry([core.builtin, ...bundled]).create('tokenizer', { name: tokenizer }, {});
  await core.prepareDataset({
    inputs: [input],
    out: path.join(host.cwd, out),
    tokenizer: { name: tokenizer, instance },
    textField: 'text',
    valFraction: 0.2,
    host,
  });
}
