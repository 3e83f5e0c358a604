import {
  type Block,
  type BuildContexts,
  defineBlock,
  type ForwardContext,
  type Params,
  type Rng,
  type StateTree,
  swiglu,
  tf,
  z,
} from '@llmx/core';

import type { MlstmState } from './cell/mlstm-chunk.ts';
import { applyLinear, endBranch, initLinear } from './layers/linear.ts';
import { LARGE_EPSILON, mlstmLargeLayer, mlstmLargeLayerStep } from './layers/mlstm-large-layer.ts';
import { initNorm, scaleNorm } from './layers/norm.ts';
import { checkDivides, largeHiddenWidth, outputStd, smallStd } from './layers/sizes.ts';

const size = z.int().positive();

const config = z.strictObject({
  heads: size.default(4).describe('Heads, each with a matrix memory; they divide dModel and the width of the keys.'),
  keyFactor: z.number().positive().default(0.5).describe('Width of queries and keys as a multiple of dModel.'),
  feedForwardFactor: z
    .number()
    .positive()
    .default(2.6667)
    .describe('Width of the feed-forward layer as a multiple of dModel, rounded up to a multiple of 64.'),
  gateCap: z
    .number()
    .positive()
    .default(15)
    .describe('Soft bound of the input and forget gates before their nonlinearities.'),
  chunk: size
    .default(64)
    .describe(
      'Positions per chunk in training and prefill: quadratic cost within, linear between. Results do not depend on it.',
    ),
  dropout: z.number().min(0).lt(1).default(0).describe('After the cell and after the feed-forward layer.'),
});
type Config = z.output<typeof config>;

/** Initial input gates are all but shut, as the authors trained it (NX-AI/xlstm-jax, mLSTMv1_default.yaml). */
const INPUT_BIAS = -10;
/** Initial forget biases, evenly over the heads. */
const FORGET_BIAS = [3, 6] as const;

type Drop = ((branch: tf.Tensor) => tf.Tensor) | undefined;

/** The residual block of xLSTM 7B: matrix memory at the model's width, and a gated feed-forward layer of its own. */
class MlstmLargeBlock implements Block {
  readonly unbounded = true;
  readonly #options: Config;
  readonly #dModel: number;
  readonly #depth: number;
  readonly #keyWidth: number;

  constructor(options: Config, { dModel, depth }: BuildContexts['block']) {
    this.#options = options;
    this.#dModel = dModel;
    this.#depth = depth;
    this.#keyWidth = Math.max(1, Math.trunc(options.keyFactor * dModel));
    checkDivides('dModel', dModel, 'heads', options.heads);
    checkDivides('The width of the keys', this.#keyWidth, 'heads', options.heads);
  }

  init(rng: Rng): Params {
    const { heads, feedForwardFactor } = this.#options;
    const [dModel, keys, hidden] = [this.#dModel, this.#keyWidth, largeHiddenWidth(this.#dModel, feedForwardFactor)];
    const [std, endStd] = [smallStd(dModel), outputStd(dModel, this.#depth)];
    return {
      ...initNorm('norm', dModel),
      ...initLinear(rng, 'query', dModel, keys, std),
      ...initLinear(rng, 'key', dModel, keys, std),
      ...initLinear(rng, 'value', dModel, dModel, std),
      'outputGate.weight': tf.zeros([dModel, dModel]),
      'inputGate.weight': tf.zeros([dModel, heads]),
      'inputGate.bias': tf.fill([heads], INPUT_BIAS),
      'forgetGate.weight': tf.zeros([dModel, heads]),
      'forgetGate.bias': tf.linspace(...FORGET_BIAS, heads),
      ...initNorm('headNorm', dModel),
      ...initLinear(rng, 'down', dModel, dModel, endStd),
      ...initNorm('feedForward.norm', dModel),
      ...initLinear(rng, 'feedForward.gate', dModel, hidden, std),
      ...initLinear(rng, 'feedForward.up', dModel, hidden, std),
      ...initLinear(rng, 'feedForward.down', hidden, dModel, endStd),
    };
  }

  forward(params: Params, x: tf.Tensor, context: ForwardContext): tf.Tensor {
    const { dropout } = this.#options;
    const { segments } = context;
    const drop = (name: string): Drop =>
      context.training && dropout > 0 ? (branch) => context.dropout(branch, dropout, name) : undefined;
    const mixed = tf.tidy(() => {
      const y = mlstmLargeLayer(params, scaleNorm(params, 'norm', x, LARGE_EPSILON), { ...this.#options, segments });
      return endBranch(params, 'down', y, x, drop('cell'));
    });
    return feedForward(params, mixed, drop('feedForward'));
  }

  initialState(batch: number): StateTree {
    const { heads } = this.#options;
    const [keySize, valueSize] = [this.#keyWidth / heads, this.#dModel / heads];
    return {
      memory: tf.zeros([batch, heads, keySize, valueSize]),
      normalizer: tf.zeros([batch, heads, keySize]),
      maximum: tf.zeros([batch, heads]),
    };
  }

  step(params: Params, x: tf.Tensor, state: StateTree): { x: tf.Tensor; state: StateTree } {
    const normed = scaleNorm(params, 'norm', x, LARGE_EPSILON);
    const { y, state: after } = mlstmLargeLayerStep(params, normed, state as unknown as MlstmState, this.#options);
    return { x: feedForward(params, applyLinear(params, 'down', y, x), undefined), state: { ...after } };
  }
}

/** x + down(silu(gate) * up). */
function feedForward(params: Params, x: tf.Tensor, drop: Drop): tf.Tensor {
  return tf.tidy(() => {
    const normed = scaleNorm(params, 'feedForward.norm', x, LARGE_EPSILON);
    const [gate, up] = ['gate', 'up'].map((half) => applyLinear(params, `feedForward.${half}`, normed));
    return endBranch(params, 'feedForward.down', swiglu(gate!, up!), x, drop);
  });
}

export const mlstmLargeBlock = defineBlock({
  name: 'mlstm-large',
  summary: 'The mLSTM block of xLSTM 7B: no convolution, softly capped gates, a feed-forward layer of its own.',
  paper: 'https://arxiv.org/abs/2503.13427',
  config,
  build: (options, context) => new MlstmLargeBlock(options, context),
});
