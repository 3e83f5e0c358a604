import { createRequire } from 'node:module';

import { definePlugin } from '@llmx/core';

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

export default definePlugin({
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
