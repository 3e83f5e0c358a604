import { createRequire } from 'node:module';

import { definePlugin, type Plugin } from '@llmx/core';

import { multiToken } from './multi-token.ts';
import { multiTokenDraft } from './multi-token-draft.ts';
import { multiTokenSequential } from './multi-token-sequential.ts';
import { multiTokenSequentialDraft } from './multi-token-sequential-draft.ts';
import { reported } from './statistics.ts';

const { name, version } = createRequire(import.meta.url)('../package.json') as { name: string; version: string };

/** Typed by name: what `definePlugin` infers would name packages that this one does not depend on. */
const plugin: Plugin = definePlugin({
  name,
  version,
  llmx: '^0.1.0',
  components: [multiToken, multiTokenSequential, multiTokenDraft, multiTokenSequentialDraft],
  setup: () => ({ hooks: { metrics: (metrics) => reported(metrics) } }),
});

export default plugin;
