import { describe, expectTypeOf, test } from 'vitest';
import { z } from 'zod';

import { defineBlock, defineObjective, defineOptimizer, definePlugin, defineSchedule } from './define.ts';
import type { HookName, HOOK_KINDS, HookTable, Plugin } from './plugin-types.ts';
import type { AnyComponent, Component, Model, Optimizer, Params, Schedule, StateTree } from './types.ts';

const optimizer: Optimizer = { init: () => 0, update: ({ params, state }) => ({ params, state }) };
const config = z.strictObject({ lr: z.number().default(0.1), decay: z.number().optional() });

describe('components', () => {
  test('build gets the validated options and the context of its kind', () => {
    const component = defineOptimizer({
      name: 'o',
      summary: 'O.',
      config,
      build(options, context) {
        expectTypeOf(options).toEqualTypeOf<{ lr: number; decay?: number | undefined }>();
        expectTypeOf(context.create('schedule', { name: 's' }, { steps: () => 1 })).toEqualTypeOf<Schedule>();
        // @ts-expect-error an optimizer knows no vocabulary
        void context.vocabSize;
        return optimizer;
      },
    });
    expectTypeOf(component).toExtend<Component<'optimizer', typeof config>>();
    expectTypeOf(component).toExtend<AnyComponent>();
    defineBlock({
      name: 'b',
      summary: 'B.',
      config: z.strictObject({}),
      build(_, { dModel, depth, create }) {
        expectTypeOf(dModel).toBeNumber();
        return create('block', { name: 'attention' }, { dModel, depth, index: 0, vocabSize: 1, contextLength: 1 });
      },
    });
  });

  test('build of the wrong kind does not compile', () => {
    expectTypeOf(optimizer).not.toExtend<Schedule>();
    // @ts-expect-error a schedule is a function
    defineSchedule({ name: 's', summary: 'S.', config, build: () => optimizer });
    // @ts-expect-error an optimizer has update
    defineOptimizer({ name: 'o', summary: 'O.', config, build: () => ({ init: () => 0 }) });
    // @ts-expect-error a summary is required
    defineOptimizer({ name: 'o', config, build: () => optimizer });
  });

  test('optimizers keep their own state type, objectives see the model', () => {
    expectTypeOf<Optimizer<{ momentum: Params }>>().toExtend<Optimizer>();
    defineOptimizer({
      name: 'm',
      summary: 'M.',
      config,
      build: (): Optimizer<{ momentum: Params }> => ({
        init: (params) => ({ momentum: params }),
        update({ params, state }) {
          expectTypeOf(state.momentum).toEqualTypeOf<Params>();
          return { params, state };
        },
      }),
    });
    defineObjective({
      name: 'n',
      summary: 'N.',
      config,
      build: () => ({
        lookahead: 1,
        targets: () => ({}),
        loss({ model }) {
          expectTypeOf(model).toEqualTypeOf<Model>();
          return { terms: {} };
        },
      }),
    });
  });
});

describe('plugins', () => {
  test('setup gets the validated options', () => {
    const plugin = definePlugin({
      name: 'p',
      version: '1.0.0',
      llmx: '*',
      config,
      setup(options, run) {
        expectTypeOf(options.lr).toBeNumber();
        run.log('ready');
        return { hooks: { stepEnd: ({ step, metrics }) => void [step, metrics['loss']] } };
      },
    });
    expectTypeOf(plugin).toExtend<Plugin>();
  });

  test('what is no plugin does not compile', () => {
    expectTypeOf<{ name: string; llmx: string }>().not.toExtend<Plugin>();
    const base = { name: 'p', version: '1.0.0', llmx: '*' };
    // @ts-expect-error a version is required
    definePlugin({ name: 'p', llmx: '*' });
    // @ts-expect-error hooks come from setup
    definePlugin({ ...base, hooks: {} });
    // @ts-expect-error a plugin is no component
    definePlugin({ ...base, components: [definePlugin(base)] });
    // @ts-expect-error setup is synchronous
    definePlugin({ ...base, setup: async () => ({}) });
    // @ts-expect-error state is tensors and numbers
    definePlugin({ ...base, setup: () => ({ saveState: () => 'text', loadState() {} }) });
  });
});

describe('hooks', () => {
  test('a hook is a handler, or one with its place', () => {
    expectTypeOf<{ run(): void }>().toExtend<HookTable>();
    expectTypeOf<{ run: { order: 'pre'; handler(): Promise<() => void> } }>().toExtend<HookTable>();
    expectTypeOf<{ gradients: { every: number; handler(grads: Params): Params } }>().toExtend<HookTable>();
  });

  test('unknown hooks, wrong orders and asynchronous handlers within a step do not compile', () => {
    expectTypeOf<{ run(): string }>().not.toExtend<HookTable>();
    // @ts-expect-error there is no such hook
    ({ stepStart() {} }) satisfies HookTable;
    // @ts-expect-error the order is pre or post
    ({ run: { order: 'first', handler() {} } }) satisfies HookTable;
    // @ts-expect-error gradients runs inside the step
    ({ gradients: async (grads: Params) => grads }) satisfies HookTable;
    // @ts-expect-error an undo is a function
    ({ run: () => 'undo' }) satisfies HookTable;
  });

  test('a hook without a kind does not compile', () => {
    expectTypeOf<keyof typeof HOOK_KINDS>().toEqualTypeOf<HookName>();
    type Kinds = (typeof HOOK_KINDS)[HookName];
    const { error: _, ...unclassified } = {} as Record<HookName, Kinds>;
    // @ts-expect-error the kind of error is missing
    unclassified satisfies Record<HookName, Kinds>;
  });
});

test('states are trees of tensors and numbers', () => {
  expectTypeOf<{ a: number; b: { c: number } }>().toExtend<StateTree>();
  expectTypeOf<{ a: string }>().not.toExtend<StateTree>();
});
