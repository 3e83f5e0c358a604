import { expect, test } from 'vitest';
import { z } from 'zod';

import { LlmxProblems } from '../errors/index.ts';
import { below, check, throwProblems } from './problems.ts';
import { configSchema } from './schema.ts';

const problemsIn = (schema: z.ZodType, value: unknown, prefix = ''): string[] =>
  (check(schema, value, prefix === '' ? below() : below(prefix)).problems ?? []).map(
    ({ message, hint }) => `${message}${hint === undefined ? '' : ` ${hint}`}`,
  );

test('every problem of a configuration, each with the setting, its value and what is expected', () => {
  const config = {
    plugin: [],
    data: { packing: 'document' },
    model: { contextLength: 0, vocabSize: 1.5, anything: 1 },
    optimizer: { name: 4 },
    train: {
      steps: '5%',
      batchSize: 'many',
      gradClip: -1,
      evalEvery: 'often',
      checkpointevery: 3,
      keepBest: null,
      seed: -1,
    },
    precision: 'fp16',
    sinks: [{ project: 'x' }],
  };
  expect(problemsIn(configSchema, config)).toMatchInlineSnapshot(`
    [
      "data.train is missing: expected text.",
      "data.packing is "document": expected one of stream, documents.",
      "model.vocabSize is 1.5: expected an integer.",
      "model.contextLength is 0: expected at least 1.",
      "optimizer.name is 4: expected text.",
      "sinks.0.name is missing: expected text.",
      "train.steps is "5%": expected steps as an integer (1000) or tokens (100Mtok; k, M, G or T).",
      "train.batchSize is "many": expected an integer.",
      "train.gradClip is -1: expected at least 0.",
      "train.evalEvery is "often": expected steps as an integer (1000), tokens (100Mtok; k, M, G or T), or a share of the run (5%).",
      "train.keepBest is empty (null): expected true or false.",
      "train.seed is -1: expected at least 0.",
      "There is no setting "train.checkpointevery". Did you mean "train.checkpointEvery"?",
      "precision is "fp16": expected one of fp32, bf16.",
      "There is no setting "plugin". Did you mean "plugins"?",
    ]
  `);
});

test('a configuration that is no object', () => {
  expect(problemsIn(configSchema, [1])).toMatchInlineSnapshot(`
    [
      "The configuration is [1]: expected settings as key: value.",
    ]
  `);
});

test('limits, formats and choices of options', () => {
  const schema = z.strictObject({
    rate: z.number().gt(0).lt(1),
    size: z.int().multipleOf(8).max(64),
    sizes: z.array(z.int()).min(1),
    word: z.string().min(1),
    code: z.string().regex(/^a+$/),
    one: z.literal('x'),
    either: z.union([z.boolean(), z.int()]),
    nested: z.strictObject({ deep: z.int() }).default({ deep: 1 }),
    variants: z.union([z.strictObject({ left: z.int() }), z.strictObject({ right: z.int() })]).optional(),
  });
  const good = { rate: 0.5, size: 8, sizes: [1], word: 'a', code: 'a', one: 'x', either: true };
  expect(problemsIn(schema, good)).toEqual([]);
  const bad = {
    rate: 1,
    size: 65,
    sizes: [],
    word: '',
    code: 'b',
    one: 'y',
    either: 'z',
    nested: { dep: 1 },
    variants: 3,
  };
  expect(problemsIn(schema, bad, 'optimizer')).toMatchInlineSnapshot(`
    [
      "optimizer.rate is 1: expected less than 1.",
      "optimizer.size is 65: expected a multiple of 8.",
      "optimizer.size is 65: expected at most 64.",
      "optimizer.sizes is []: expected at least 1 entry.",
      "optimizer.word is "": expected at least 1 character.",
      "optimizer.code is "b": expected text of the form /^a+$/.",
      "optimizer.one is "y": expected x.",
      "optimizer.either is "z": expected true or false or an integer.",
      "optimizer.nested.deep is missing: expected an integer.",
      "There is no setting "optimizer.nested.dep". Did you mean "optimizer.nested.deep"?",
      "optimizer.variants is 3: expected settings as key: value.",
    ]
  `);
  expect(problemsIn(schema, { ...good, rate: Number.NaN, size: 'x', variants: { rigth: 1 } })).toMatchInlineSnapshot(`
    [
      "rate is NaN: expected a number.",
      "size is "x": expected an integer.",
      "variants.left is missing: expected an integer.",
      "There is no setting "variants.rigth". Did you mean "variants.right"?",
    ]
  `);
});

test("a schema's own message", () => {
  const schema = z
    .strictObject({ dModel: z.int(), heads: z.int().default(4) })
    .refine(({ dModel, heads }) => dModel % heads === 0, {
      error: 'dModel must be a multiple of heads',
      path: ['heads'],
    });
  expect(problemsIn(schema, { dModel: 10, heads: 4 }, 'model')).toEqual([
    'model.heads is 4: dModel must be a multiple of heads.',
  ]);
  expect(problemsIn(schema, { dModel: 10 }, 'model')).toEqual(['model.heads: dModel must be a multiple of heads.']);
});

test('problems are thrown together, each of them once', () => {
  const { problems = [] } = check(z.strictObject({ a: z.int() }), { a: 'x', b: 1 });
  expect(() => throwProblems([...problems, ...problems])).toThrowErrorMatchingInlineSnapshot(`
    [LlmxError: a is "x": expected an integer.
    There is no setting "b".]
  `);
  expect(() => throwProblems(problems)).toThrow(LlmxProblems);
  expect(() => throwProblems([])).not.toThrow();
});
