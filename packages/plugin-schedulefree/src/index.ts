import { createRequire } from 'node:module';

import { definePlugin, type Plugin } from '@llmx/core';

import { advise } from './advice.ts';
import {
  adamcScheduleFreePlus,
  adamwScheduleFree,
  radamScheduleFree,
  scheduleFreeWrapper,
  sgdScheduleFree,
} from './optimizers.ts';

const { name, version } = createRequire(import.meta.url)('../package.json') as { name: string; version: string };
const components = [adamwScheduleFree, sgdScheduleFree, radamScheduleFree, adamcScheduleFreePlus, scheduleFreeWrapper];

/** Typed by name: what `definePlugin` infers would name packages that this one does not depend on. */
const plugin: Plugin = definePlugin({
  name,
  version,
  llmx: '^0.1.0',
  components,
  setup: (_options, { warn }) => ({
    hooks: {
      resolveConfig: (config) =>
        advise(
          config,
          components.map((component) => component.name),
          warn,
        ),
    },
  }),
});

export default plugin;
