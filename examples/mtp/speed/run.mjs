// `node examples/mtp/speed/run.mjs`: how much faster does a small byte-level model write with its own heads as a draft? Trains
// the model, lets it continue held-out text with 1 to 8 heads in turn, writes results.json, the table in README.md and
// plot.svg here.
import path from 'node:path';

import { openDataset } from '@llmx/core';

import { mean, openExperiment } from '../../support/experiment.mjs';
import { draw, table } from './report.mjs';
import { openWriter } from './writer.mjs';

const RUN = 'multi-token';
/** Heads that decode, the next token's included; 1 is ordinary decoding. */
const HEADS = [1, 2, 3, 4, 5, 6, 7, 8];
const TEMPERATURES = [0, 0.8];
const PROMPTS = 16;
// Together they fit into the context, so that no text is cut and read again.
const [PROMPT_BYTES, BYTES] = [64, 190];

const experiment = openExperiment(import.meta.url);

/** Beginnings spread over the held-out text, in ASCII, so that bytes are letters. */
function heldOutPrompts() {
  const reader = openDataset(path.join(experiment.folder, 'sotu')).split('val');
  const at = (index) => Math.floor(((index + 0.5) * reader.tokens) / PROMPTS);
  const prompts = Array.from({ length: PROMPTS }, (_, index) => {
    for (let start = at(index); ; start++) {
      const ids = reader.read(start, PROMPT_BYTES + 1);
      if (ids[0] === 0x20 && ids.every((id) => id < 0x80)) return String.fromCharCode(...ids.subarray(1));
    }
  });
  reader.close();
  return prompts;
}

/** All continuations of a prompt, one after another, so that what else the machine does falls on all alike. */
async function measure(write, prompt) {
  const all = [];
  for (const temperature of TEMPERATURES)
    for (const heads of HEADS) all.push(await write({ prompt, heads, temperature, maxTokens: BYTES }));
  const [{ text }] = all;
  console.log(JSON.stringify(`${prompt}|${text}`));
  // Sampled texts are other draws from the same distribution.
  const measurements = all.map(({ text: other, ...numbers }) => ({
    ...numbers,
    ...(numbers.temperature === 0 && { same: other === text }),
  }));
  return { prompt, text, measurements };
}

/** What the heads agreed on over the last tenth of training, on text that the model had not seen before. */
function onTrueText() {
  const lines = experiment.metrics(RUN).filter(({ kind }) => kind === 'train');
  const last = lines.slice(-Math.ceil(lines.length / 10));
  const average = (key) => mean(last.map((line) => line[key]));
  return {
    tokensPerPass: average('acceptance/tokensPerPass'),
    losses: HEADS.map((head) => average(`loss/head${head}`)),
    acceptance: HEADS.slice(1).map((head) => average(`acceptance/head${head}`)),
  };
}

await experiment.prepareAddresses();
// One thread, for decoding too: a checkpoint keeps its backend, and passes over a few bytes gain nothing from more.
const { valLoss } = await experiment.train({ config: 'multi-token.yaml', name: RUN, settings: {}, threads: 1 });
const write = await openWriter(experiment.folder, RUN);
const prompts = heldOutPrompts();
await measure(write, prompts[0]); // not counted: what runs for the first time is slow
const texts = [];
for (const prompt of prompts) texts.push(await measure(write, prompt));
const results = { valLoss, trueText: onTrueText(), texts };
experiment.report({ results, table: table(results), plots: { 'plot.svg': draw(results) } });
