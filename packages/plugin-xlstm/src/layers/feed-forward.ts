import { expr, fuse, type Params, type tf } from '@llmx/core';

import { applyLinear } from './linear.ts';

const { add, erf, mul } = expr;

/** gelu(gate) * x, with the exact GELU (Shazeer, arXiv 2002.05202). */
const geglu = fuse((gate, x) => mul(mul(mul(0.5, gate), add(1, erf(mul(gate, Math.SQRT1_2)))), x));

/**
 * The hidden layer of a gated feed-forward layer: gelu(gate x) * (up x).
 *
 * @param x float32 [batch, time, dModel], normed
 */
export function feedForwardHidden(params: Params, path: string, x: tf.Tensor): tf.Tensor {
  return geglu(applyLinear(params, `${path}.gate`, x), applyLinear(params, `${path}.up`, x));
}
