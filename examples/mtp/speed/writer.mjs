// A trained model in this process, opened and asked as `llmx generate` does. A process of its own for every text would spend
// most of its time on starting and on compiling what it runs.
import * as core from '@llmx/core';

import { bundledPlugins } from '../../../packages/cli/dist/first-party.js';
import { createHost } from '../../../packages/cli/dist/host.js';

/**
 * Opens a run's newest checkpoint.
 *
 * @param {string} folder where the runs lie
 * @param {string} target the run
 * @returns a function that continues a prompt, with `heads` heads, the next token's included; 1 is ordinary decoding
 */
export async function openWriter(folder, target) {
  const { signal } = new AbortController();
  const host = { ...createHost({ signal, log: () => {} }), cwd: folder };
  const saved = await core.openSavedModel({ target }, { host, coreModule: core, bundled: await bundledPlugins() });
  const draft = core.openDraft(saved);
  return async ({ prompt, heads, temperature, maxTokens }) => {
    const statistics = new core.DecodingStatistics();
    const draftTokens = heads - 1;
    const sampling = { temperature, topK: 0, topP: 1, seed: 1 };
    const options = { maxTokens, ...sampling, ...(draftTokens > 0 && { draftTokens }), onRound: statistics.add };
    const source = { ...saved, draft: draftTokens > 0 ? draft : undefined };
    let [text, tokens] = ['', 0];
    const start = performance.now();
    for await (const piece of core.generateText(source, prompt, options, signal)) {
      text += piece.text;
      ({ tokens } = piece);
    }
    const seconds = (performance.now() - start) / 1000;
    const { passes, proposed, accepted } = statistics.report();
    return { heads, temperature, text, tokens, seconds, passes, proposed, accepted };
  };
}
