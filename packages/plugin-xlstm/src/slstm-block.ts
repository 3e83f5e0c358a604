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
import { feedForwardHidden } from './layers/feed-forward.ts';
import { endBranch, initLinear } from './layers/linear.ts';
import { initNorm, norm } from './layers/norm.ts';
import { checkDivides, innerWidth, outputStd, smallStd } from './layers/sizes.ts';
import { slstmLayer, slstmLayerRewind, type SlstmLayerState, slstmLayerStep } from './layers/slstm-layer.ts';

const size = z.int().positive();

const config = z.strictObject({
  heads: size.default(4).describe('Heads; memory mixes within a head. They divide dModel.'),
  feedForwardFactor: z
    .number()
    .positive()
    .default(1.3)
    .describe('Width of the feed-forward layer as a multiple of dModel, rounded up to a multiple of 64.'),
  taps: z.int().min(2).default(4).describe('Positions that the convolution before the input and forget gates sees.'),
  dropout: z.number().min(0).lt(1).default(0).describe('After the cell and after the feed-forward layer.'),
});
type Config = z.output<typeof config>;

/** Initial biases of the forget gates of one head: from 5 at its first unit to -7 at the last, bent more in later blocks. */
function forgetBias(headSize: number, index: number, depth: number): number[] {
  const exponent = 0.3 + 1.3 * (depth > 1 ? index / (depth - 1) : 0);
  return Array.from({ length: headSize }, (_, unit) => 5 - 12 * (unit / Math.max(1, headSize - 1)) ** exponent);
}

/** The residual block with scalar memory and memory mixing, and a gated feed-forward layer (Beck et al. 2024, figure 10). */
class SlstmBlock implements Block {
  readonly unbounded = true;
  readonly #options: Config;
  readonly #dModel: number;
  readonly #index: number;
  readonly #depth: number;
  readonly #headSize: number;

  constructor(options: Config, { dModel, index, depth }: BuildContexts['block']) {
    checkDivides('dModel', dModel, 'heads', options.heads);
    this.#options = options;
    this.#dModel = dModel;
    this.#index = index;
    this.#depth = depth;
    this.#headSize = dModel / options.heads;
  }

  init(rng: Rng): Params {
    const { heads, feedForwardFactor, taps } = this.#options;
    const [dModel, headSize, std] = [this.#dModel, this.#headSize, smallStd(this.#dModel)];
    const hidden = innerWidth(dModel, feedForwardFactor);
    const gate = (name: string) => ({
      [`${name}.weight`]: rng.normal(`${name}.weight`, [heads, headSize, headSize], std),
    });
    const zeros = Array.from({ length: dModel }, () => 0);
    const forget = forgetBias(headSize, this.#index, this.#depth);
    const bias = [zeros, ...Array.from({ length: heads }, () => forget), zeros, zeros].flat();
    return {
      ...initNorm('norm', dModel),
      ...initConvolution(rng, 'convolution', taps, dModel),
      ...gate('inputGate'),
      ...gate('forgetGate'),
      ...gate('cellInput'),
      ...gate('outputGate'),
      'recurrent.weight': tf.zeros([heads, headSize, 4 * headSize]),
      'recurrent.bias': tf.tensor1d(bias),
      ...initNorm('headNorm', dModel),
      ...initNorm('feedForward.norm', dModel),
      ...initLinear(rng, 'feedForward.gate', dModel, hidden, std),
      ...initLinear(rng, 'feedForward.up', dModel, hidden, std),
      ...initLinear(rng, 'feedForward.down', hidden, dModel, outputStd(dModel, this.#depth)),
    };
  }

  forward(params: Params, x: tf.Tensor, context: ForwardContext): tf.Tensor {
    const { dropout } = this.#options;
    const { segments } = context;
    const drop = context.training && dropout > 0 ? context.dropout : undefined;
    const mixed = tf.tidy(() => {
      const y = slstmLayer(params, norm(params, 'norm', x), { segments });
      return tf.add(x, drop === undefined ? y : drop(y, dropout, 'cell'));
    });
    return this.#feedForward(params, mixed, drop && ((y) => drop(y, dropout, 'feedForward')));
  }

  initialState(batch: number): StateTree {
    return {
      cell: tf.zeros([4, batch, this.#dModel]),
      convolution: tf.zeros([batch, this.#options.taps - 1, this.#dModel]),
    };
  }

  step(
    params: Params,
    x: tf.Tensor,
    state: StateTree,
    { rewindable = false }: StepContext,
  ): { x: tf.Tensor; state: StateTree } {
    const before = state as unknown as SlstmLayerState;
    const { y, state: after } = slstmLayerStep(params, norm(params, 'norm', x), before, { rewindable });
    return { x: this.#feedForward(params, tf.add(x, y), undefined), state: after as unknown as StateTree };
  }

  rewind(params: Params, state: StateTree, count: number): StateTree {
    const after = state as unknown as Required<SlstmLayerState>;
    return slstmLayerRewind(params, after, count) as unknown as StateTree;
  }

  /** x + down(gelu(gate) * up). */
  #feedForward(params: Params, x: tf.Tensor, drop: ((branch: tf.Tensor) => tf.Tensor) | undefined): tf.Tensor {
    return tf.tidy(() => {
      const hidden = feedForwardHidden(params, 'feedForward', norm(params, 'feedForward.norm', x));
      return endBranch(params, 'feedForward.down', hidden, x, drop);
    });
  }
}

export const slstmBlock = defineBlock({
  name: 'slstm',
  summary:
    'Scalar memory with exponential gates and memory mixing, which tracks state; a scan over time, constant-size state.',
  paper: 'https://arxiv.org/abs/2405.04517',
  config,
  build: (options, context) => new SlstmBlock(options, context),
});
