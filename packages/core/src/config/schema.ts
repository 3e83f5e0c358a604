import { z } from 'zod';

import { durationSchema, runLengthSchema, sizeSchema, timeSchema, tokensSchema } from './durations.ts';

export const DEFAULT_ARCHITECTURE = 'decoder';

const text = z.string().min(1);
const count = z.int().min(1);

/** A component as `name` or `{ name, ...options }`; its options are checked against the component's own schema. */
const selection = (name: string) =>
  z
    .union([text, z.looseObject({ name: text.default(name) })], { error: 'expected a name or { name, ...options }' })
    .default(name);

const named = z.union([text, z.looseObject({ name: text })], { error: 'expected a name or { name, ...options }' });

const dataSchema = z.strictObject(
  {
    train: text.describe('Folder of a prepared dataset.'),
    packing: z
      .enum(['stream', 'documents'])
      .default('stream')
      .describe(
        'stream: windows over the text as it comes; documents: the same windows, documents do not see each other.',
      ),
    valSplit: text.default('val').describe('Split used for evaluation.'),
    source: selection('llmx-tokens').describe('Reader of the dataset format.'),
  },
  { error: ({ input }) => (input === undefined ? 'expected { train: <folder of a prepared dataset> }' : undefined) },
);

const modelSchema = z.looseObject({
  architecture: text.default(DEFAULT_ARCHITECTURE),
  vocabSize: count.optional().describe("Rows of the embedding; the tokenizer's vocabulary where it is left out."),
  contextLength: count.default(256).describe('Tokens per window.'),
});

const guardSchema = z.strictObject({
  maxSkips: z
    .int()
    .min(0)
    .default(3)
    .describe('Steps in a row to leave out whose loss or gradients are not finite; one more stops the run.'),
  spikeSigma: z
    .number()
    .min(0)
    .default(0)
    .describe(
      'Leave out, too, steps whose loss or gradient norm is so many standard deviations above its mean; 0 is off.',
    ),
  spikeWindow: z.int().min(2).default(100).describe('Steps that the mean and the deviation are taken over.'),
});

const sampleSchema = z.strictObject({
  prompt: z.string().default('').describe('What the text goes on from; nothing: a new document.'),
  tokens: count.default(100).describe('Tokens to write at most.'),
  temperature: z.number().min(0).default(0.8).describe('Divides the logits; 0 takes the most likely token.'),
});

const trainSchema = z.strictObject({
  steps: runLengthSchema.default(1000).describe('Length of the run.'),
  batchSize: count.default(16).describe('Windows per forward pass.'),
  gradAccumulation: count.default(1).describe('Forward passes per optimizer step.'),
  gradClip: z.number().min(0).default(1).describe('Largest global norm of the gradients; 0 is off.'),
  evalEvery: durationSchema.default(100).describe('Steps between evaluations; 0 is off.'),
  evalTokens: z.int().min(0).default(65536).describe('Tokens per evaluation; 0 is the whole split.'),
  sample: sampleSchema.optional().describe('Text to write and show with every evaluation.'),
  checkpointEvery: durationSchema.default(100).describe('Steps between checkpoints; 0 leaves only the last one.'),
  logEvery: count.default(10).describe('Steps between lines of metrics.'),
  keepLast: count.default(2).describe('How many of the newest checkpoints to keep.'),
  keepBest: z.boolean().default(true).describe('Keep the checkpoint of lowest evaluation loss.'),
  keepEvery: durationSchema.default(0).describe('Keep every checkpoint at this distance for good; 0 is off.'),
  initFrom: text
    .optional()
    .describe('Run or checkpoint whose weights to start from: the name of a run, or a path (with a slash).'),
  freeze: z
    .array(text)
    .default([])
    .describe('Parameters that are not trained: those whose path matches a pattern (* is any text).'),
  maxTime: timeSchema.optional().describe('Save and stop after this time, e.g. 11.5h; --resume continues.'),
  tokens: tokensSchema
    .optional()
    .describe('End the run after this many tokens, e.g. 100Mtok, though its schedule is made for train.steps.'),
  maxMemory: sizeSchema
    .optional()
    .describe('Save and stop when the process holds more resident memory than this, e.g. 12GiB.'),
  watchdog: timeSchema.optional().describe('Say which step hangs when one takes longer than this, e.g. 10min.'),
  guard: z
    .union([guardSchema, z.literal(false)], { error: 'expected { maxSkips, spikeSigma, spikeWindow } or false' })
    .prefault({})
    .describe('What keeps bad steps out; false takes every step.'),
  seed: z.int().min(0).default(1).describe('Seed of initial values, data order and dropout.'),
});

/**
 * Schema of an architecture's `blocks` option: entries in order, each a block repeated, with the block's options beside
 * it. The entries that reach `build` have all options of their block, validated.
 */
export const blockPatternSchema = z.array(z.looseObject({ block: text, repeat: count.default(1) })).min(1);

/**
 * The configuration file. It has no transforms, so its shape is the shape of the resolved configuration, and what
 * `llmx config show` prints trains again. Keys of `model` beyond these belong to the architecture and its blocks.
 */
export const configSchema = z.strictObject({
  extends: z
    .union([text, z.array(text)], { error: 'expected a path or a list of paths' })
    .optional()
    .describe('Configuration files that this one builds on; relative to this file.'),
  plugins: z.array(named).default([]).describe('Plugins by package name or by ./file.ts.'),
  data: dataSchema,
  model: modelSchema.prefault({}),
  objective: selection('next-token'),
  optimizer: selection('adamw'),
  schedule: selection('cosine').describe('Multiplier of the learning rate over the run.'),
  sinks: z.array(named).default([]).describe('Receivers of metrics besides metrics.jsonl.'),
  train: trainSchema.prefault({}),
  backend: selection('auto').describe('What computes; auto takes the fastest that works here.'),
  precision: z.enum(['fp32', 'bf16']).default('fp32'),
});

type ConfigFile = z.output<typeof configSchema>;

/** A component as the resolved configuration holds it: `name`, with all its options beside it. */
export interface Selection {
  readonly name: string;
  readonly [option: string]: unknown;
}

/** `model` as resolved: core's keys and all options of the architecture beside them. */
export interface ModelConfig {
  readonly architecture: string;
  readonly vocabSize?: number | undefined;
  readonly contextLength: number;
  readonly [option: string]: unknown;
}

/** The resolved configuration: every default filled in, every path absolute, every component with its options. */
export interface RunConfig {
  readonly plugins: readonly Selection[];
  readonly data: Readonly<Omit<ConfigFile['data'], 'source'>> & { readonly source: Selection };
  readonly model: ModelConfig;
  readonly objective: Selection;
  readonly optimizer: Selection;
  readonly schedule: Selection;
  readonly sinks: readonly Selection[];
  readonly train: Readonly<ConfigFile['train']>;
  readonly backend: Selection;
  readonly precision: ConfigFile['precision'];
}

/** Per kind of which the file selects one component: where, and which by default. `auto` is no component but core's choice. */
export const SELECTIONS = {
  source: { path: ['data', 'source'], name: 'llmx-tokens' },
  objective: { path: ['objective'], name: 'next-token' },
  optimizer: { path: ['optimizer'], name: 'adamw' },
  schedule: { path: ['schedule'], name: 'cosine' },
  backend: { path: ['backend'], name: 'auto' },
} as const;
