import {
  type Block,
  type BuildContexts,
  defineBlock,
  type ForwardContext,
  type Params,
  type Rng,
  type StateTree,
  type StepContext,
  tf,
  z,
} from '@llmx/core';

import { initConvolution } from './layers/convolution.ts';
import { applyLinear, endBranch, initLinear } from './layers/linear.ts';
import { mlstmLayer, mlstmLayerRewind, type MlstmLayerState, mlstmLayerStep } from './layers/mlstm-layer.ts';
import { initNorm, norm } from './layers/norm.ts';
import { checkDivides, innerWidth, outputStd, smallStd } from './layers/sizes.ts';

const size = z.int().positive();

const config = z.strictObject({
  heads: size.default(4).describe('Heads, each with a matrix memory; they divide the inner width.'),
  projectionFactor: z
    .number()
    .positive()
    .default(2)
    .describe('Inner width as a multiple of dModel, rounded up to a multiple of 64.'),
  projectionBlock: size.default(4).describe('Features that queries, keys and values mix: the size of their blocks.'),
  taps: z.int().min(2).default(4).describe('Positions that the convolution before queries and keys sees.'),
  chunk: size
    .default(64)
    .describe(
      'Positions per chunk in training and prefill: quadratic cost within, linear between. Results do not depend on it.',
    ),
  dropout: z.number().min(0).lt(1).default(0).describe('At the end of the residual branch.'),
});
type Config = z.output<typeof config>;

/** Spread of the input gate's initial bias. */
const INPUT_BIAS_STD = 0.1;
/** Initial forget biases, evenly over the heads: how long a head remembers at first. */
const FORGET_BIAS = [3, 6] as const;

/** The residual block with matrix memory, up-projection before the cell (Beck et al. 2024, figure 11). */
class MlstmBlock implements Block {
  readonly unbounded = true;
  readonly #options: Config;
  readonly #dModel: number;
  readonly #depth: number;
  readonly #inner: number;

  constructor(options: Config, { dModel, depth }: BuildContexts['block']) {
    this.#options = options;
    this.#dModel = dModel;
    this.#depth = depth;
    this.#inner = innerWidth(dModel, options.projectionFactor);
    checkDivides('The inner width', this.#inner, 'heads', options.heads);
    checkDivides('The inner width', this.#inner, 'projectionBlock', options.projectionBlock);
  }

  init(rng: Rng): Params {
    const { heads, projectionBlock, taps } = this.#options;
    const [inner, std] = [this.#inner, smallStd(this.#dModel)];
    const block = [inner / projectionBlock, projectionBlock, projectionBlock];
    const projection = (name: string) => ({ [`${name}.weight`]: rng.normal(`${name}.weight`, block, std) });
    return {
      ...initNorm('norm', this.#dModel),
      ...initLinear(rng, 'up', this.#dModel, inner, std),
      ...initLinear(rng, 'gate', this.#dModel, inner, std),
      ...initConvolution(rng, 'convolution', taps, inner),
      ...projection('query'),
      ...projection('key'),
      ...projection('value'),
      'inputGate.weight': tf.zeros([3 * inner, heads]),
      'inputGate.bias': rng.normal('inputGate.bias', [heads], INPUT_BIAS_STD),
      'forgetGate.weight': tf.zeros([3 * inner, heads]),
      'forgetGate.bias': tf.linspace(...FORGET_BIAS, heads),
      ...initNorm('headNorm', inner),
      skip: tf.ones([inner]),
      ...initLinear(rng, 'down', inner, this.#dModel, outputStd(this.#dModel, this.#depth)),
    };
  }

  forward(params: Params, x: tf.Tensor, context: ForwardContext): tf.Tensor {
    const { heads, chunk, dropout } = this.#options;
    const { segments } = context;
    const y = mlstmLayer(params, norm(params, 'norm', x), { heads, chunk, segments });
    const drops = context.training && dropout > 0;
    return endBranch(params, 'down', y, x, drops ? (branch) => context.dropout(branch, dropout, 'down') : undefined);
  }

  initialState(batch: number): StateTree {
    const { heads, taps } = this.#options;
    const headSize = this.#inner / heads;
    return {
      convolution: tf.zeros([batch, taps - 1, this.#inner]),
      memory: tf.zeros([batch, heads, headSize, headSize]),
      normalizer: tf.zeros([batch, heads, headSize]),
      maximum: tf.zeros([batch, heads]),
    };
  }

  step(
    params: Params,
    x: tf.Tensor,
    state: StateTree,
    { rewindable = false }: StepContext,
  ): { x: tf.Tensor; state: StateTree } {
    const { heads, chunk } = this.#options;
    const before = state as unknown as MlstmLayerState;
    const { y, state: after } = mlstmLayerStep(params, norm(params, 'norm', x), before, { heads, chunk, rewindable });
    return { x: applyLinear(params, 'down', y, x), state: after as unknown as StateTree };
  }

  rewind(_params: Params, state: StateTree, count: number): StateTree {
    const after = state as unknown as Required<MlstmLayerState>;
    return mlstmLayerRewind(after, count, this.#options) as unknown as StateTree;
  }
}

export const mlstmBlock = defineBlock({
  name: 'mlstm',
  summary:
    'Matrix memory with exponential gates: trains in time linear in context, decodes from a state of constant size.',
  paper: 'https://arxiv.org/abs/2405.04517',
  config,
  build: (options, context) => new MlstmBlock(options, context),
});
