import { createRequire } from 'node:module';

import { definePlugin, type Plugin } from '@llmx/core';

import { xlstm } from './architecture.ts';
import { mlstmBlock } from './mlstm-block.ts';
import { mlstmLargeBlock } from './mlstm-large-block.ts';
import { loadNativeKernels } from './native-kernels.ts';
import { slstmBlock } from './slstm-block.ts';

export { fromOfficial, toOfficial } from './official-names.ts';

const { name, version } = createRequire(import.meta.url)('../package.json') as { name: string; version: string };

/** Typed by name: what `definePlugin` infers would name packages that this one does not depend on. */
const plugin: Plugin = definePlugin({
  name,
  version,
  llmx: '^0.1.0',
  components: [mlstmBlock, mlstmLargeBlock, slstmBlock, xlstm],
  setup: () => ({ hooks: { backendReady: async () => void (await loadNativeKernels()) } }),
});

export default plugin;
