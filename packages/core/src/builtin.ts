import { cpuBackend, tfjsNodeBackend, tfjsNodeGpuBackend, wasmBackend } from './backend/index.ts';
import { bytesTokenizer } from './data/bytes-tokenizer.ts';
import { llmxTokens } from './data/llmx-tokens.ts';
import { attentionBlock } from './nn/attention-block.ts';
import { decoder } from './nn/decoder.ts';
import { nextToken } from './objective/next-token.ts';
import { adamw } from './optimizer/adamw.ts';
import { lion } from './optimizer/lion.ts';
import { sgd } from './optimizer/sgd.ts';
import { definePlugin } from './plugin/define.ts';
import { constant } from './schedule/constant.ts';
import { cosine } from './schedule/cosine.ts';
import { inverseSqrt } from './schedule/inverse-sqrt.ts';
import { linear } from './schedule/linear.ts';
import { wsd } from './schedule/wsd.ts';
import { VERSION } from './version.ts';

/** What every run can choose from: registered through the same door as any plugin's components. */
export const builtin = definePlugin({
  name: '@llmx/core',
  version: VERSION,
  llmx: `^${VERSION}`,
  components: [
    decoder,
    attentionBlock,
    nextToken,
    adamw,
    lion,
    sgd,
    constant,
    linear,
    cosine,
    wsd,
    inverseSqrt,
    bytesTokenizer,
    llmxTokens,
    tfjsNodeGpuBackend,
    tfjsNodeBackend,
    wasmBackend,
    cpuBackend,
  ],
});
