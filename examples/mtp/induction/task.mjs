// The task `induction`: whether a model goes on with a name as the story wrote it before.
import { defineTask, definePlugin, tf, z } from '@llmx/core';

import { story } from './stories.mjs';

/** Stories that are evaluated at a time. */
const BATCH = 50;
const EVALUATION = { training: false, dropout: (x) => x };

/** How many of the repeated letters of some stories are the likeliest token, and how many there are. */
async function count({ model, params, tokenizer }, stories) {
  const encoder = new TextEncoder();
  const texts = stories.map(({ text }) => tokenizer.encode(encoder.encode(text)));
  const time = Math.max(...texts.map(({ length }) => length));
  const tokens = texts.flatMap((text) => [...text, ...Array(time - text.length).fill(tokenizer.endOfText)]);
  const chosen = tf.tidy(() => {
    const batch = { tokens: tf.tensor2d(tokens, [stories.length, time], 'int32') };
    return tf.argMax(model.logits(params, model.hidden(params, batch, EVALUATION)), -1); // [stories, time]
  });
  const ids = await chosen.data();
  chosen.dispose();
  const isRight = stories.flatMap(({ repeated }, row) =>
    repeated.map((place) => ids[row * time + place - 1] === texts[row][place]),
  );
  return { right: isRight.filter(Boolean).length, letters: isRight.length };
}

/** Accuracy on the letters of a name after its first, where the story has mentioned it before. */
const induction = defineTask({
  name: 'induction',
  summary: 'Share of the letters of repeated names that a model predicts, names of the training set and new ones.',
  paper: 'https://arxiv.org/abs/2404.19737',
  config: z.strictObject({
    stories: z.int().positive().default(200).describe('How many to evaluate.'),
    seed: z.int().min(0).default(1),
  }),
  build: ({ stories, seed }) => ({
    async run({ signal, ...trained }) {
      const accuracies = {};
      for (const names of ['known', 'new']) {
        const total = { right: 0, letters: 0 };
        for (let first = 0; first < stories && !signal.aborted; first += BATCH) {
          const rows = Array.from({ length: Math.min(BATCH, stories - first) }, (_, row) =>
            story({ set: 'test', names, seed }, first + row),
          );
          const { right, letters } = await count(trained, rows);
          total.right += right;
          total.letters += letters;
        }
        accuracies[`accuracy/${names}`] = total.right / total.letters;
      }
      return accuracies;
    },
  }),
});

export default definePlugin({
  name: 'llmx-example-induction',
  version: '0.1.0',
  llmx: '^0.1.0',
  components: [induction],
});
