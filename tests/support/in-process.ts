// Training within the test's own process, on data prepared from texts.
import fs from 'node:fs';
import path from 'node:path';

import * as core from '@llmx/core';

import { testEnvironment } from '../../packages/core/src/run/test-environment.ts';

/** The surroundings of runs below `folder`; warnings go to `warn`. */
export const environment = (
  folder: string,
  bundled: readonly core.Plugin[],
  options: { readonly signal?: AbortSignal; readonly warn?: (message: string) => void } = {},
): core.Environment => testEnvironment(folder, core, { ...options, bundled });

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
