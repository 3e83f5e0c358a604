import { fuse } from '../elementwise.ts';
import { expr } from '../expression.ts';

const { mul, add, erf, sigmoid } = expr;

/** Gaussian error linear unit, exact: x Phi(x) (Hendrycks & Gimpel, arXiv 1606.08415). */
export const gelu = fuse((x) => mul(mul(0.5, x), add(1, erf(mul(x, Math.SQRT1_2)))));

/** Sigmoid linear unit: x sigmoid(x). */
export const silu = fuse((x) => mul(x, sigmoid(x)));

/** Gated linear unit with SiLU: silu(gate) * x (Shazeer, arXiv 2002.05202). */
export const swiglu = fuse((gate, x) => mul(mul(gate, sigmoid(gate)), x));
