import { fuse, runProgram } from '../elementwise.ts';
import { compile, derivatives, expr, inputExpression } from '../expression.ts';
import type { tf } from '../tf.ts';

const { mul, add, erf, sigmoid } = expr;

const geluOf = (x: Parameters<typeof mul>[0]) => mul(mul(0.5, x), add(1, erf(mul(x, Math.SQRT1_2))));

/** Gaussian error linear unit, exact: x Phi(x) (Hendrycks & Gimpel, arXiv 1606.08415). */
export const gelu = fuse((x) => geluOf(x));

const y = geluOf(inputExpression(0));
const valueOnly = compile([y], 1);
const valueAndSlope = compile([y, ...derivatives(y, 1)], 1);

/** gelu(x), unrecorded. */
export const geluValue = (x: tf.Tensor): tf.Tensor => runProgram(valueOnly, [x])[0]!;

/** gelu(x) and its derivative at x, unrecorded. */
export const geluWithDerivative = (x: tf.Tensor): [tf.Tensor, tf.Tensor] =>
  runProgram(valueAndSlope, [x]) as [tf.Tensor, tf.Tensor];

/** Sigmoid linear unit: x sigmoid(x). */
export const silu = fuse((x) => mul(x, sigmoid(x)));

/** Gated linear unit with SiLU: silu(gate) * x (Shazeer, arXiv 2002.05202). Its result, and gradients, are for products. */
export const swiglu = fuse((gate, x) => mul(mul(gate, sigmoid(gate)), x), { rounded: true });
