import { defineObjective, definePlugin, LlmxError, type Objective, tf, z } from '@llmx/core';

/**
 * Cross-entropy plus a penalty on the log-partition, which keeps logits from drifting:
 *
 *     loss = mean(logZ - logit[label]) + coefficient mean(logZ^2),  logZ = log sum exp logits
 */
const zLoss = defineObjective({
  name: 'z-loss',
  summary: 'Next-token cross-entropy with a penalty on the squared log-partition.',
  paper: 'https://arxiv.org/abs/2204.02311',
  config: z.strictObject({ coefficient: z.number().min(0).default(1e-4) }),
  build: ({ coefficient }): Objective => ({
    lookahead: 1,
    targets({ labels }) {
      const count = labels.filter((label) => label >= 0).length;
      return { crossEntropy: count, logZSquared: count };
    },
    loss({ model, params, batch, context }) {
      const logits = model.logits(params, model.hidden(params, batch, context)); // [batch, time, vocabSize]
      const labels = tf.squeeze(batch.labels, [2]); // [batch, time], lookahead being 1
      const counted = tf.cast(tf.greaterEqual(labels, 0), 'float32');
      const chosen = tf.cast(tf.oneHot(labels, model.vocabSize), 'float32'); // zeros where a label is -1
      const logZ = tf.logSumExp(logits, -1);
      const logLikelihood = tf.sub(tf.sum(tf.mul(logits, chosen), -1), logZ);
      return {
        terms: {
          crossEntropy: { sum: tf.neg(tf.sum(tf.mul(logLikelihood, counted))), weight: 1 },
          logZSquared: { sum: tf.sum(tf.mul(tf.square(logZ), counted)), weight: coefficient },
        },
      };
    },
  }),
});

const guard = z.strictObject({
  limit: z.number().gt(0).default(1e4).describe('Mean squared log-partition that is still healthy.'),
  patience: z.int().min(1).default(5).describe('Checks in a row above the limit that stop the run.'),
});
const guardState = z.strictObject({ strikes: z.int().min(0) });

export default definePlugin({
  name: 'llmx-plugin-z-loss',
  version: '1.0.0',
  llmx: '>=0.1.0',
  components: [zLoss],
  config: guard,
  setup({ limit, patience }) {
    let strikes = 0; // setup runs once per run, so this is the run's
    return {
      saveState: () => ({ strikes }),
      loadState: (state) => void ({ strikes } = guardState.parse(state)),
      hooks: {
        stepEnd: {
          every: 10,
          handler({ step, metrics }) {
            const logZSquared = metrics['loss/logZSquared'];
            if (logZSquared === undefined) return; // another objective is selected
            strikes = logZSquared > limit ? strikes + 1 : 0;
            if (strikes < patience) return;
            const message = `The squared log-partition was above ${limit} at ${strikes} checks in a row, up to step ${step}.`;
            throw new LlmxError('LLMX_DIVERGED', message, { hint: 'Lower the learning rate.' });
          },
        },
      },
    };
  },
});
