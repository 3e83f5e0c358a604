/** The exact GELU, x Phi(x) with Phi the normal distribution function, and its derivative. */
#pragma once

#include "llmx/kernel.h"
#include "llmx/vector_math.h"

namespace llmx::LLMX_ISA_NAME {

/**
 * gelu(x); `derivative` becomes Phi(x) + x phi(x). Errors below 2e-7 times max(1, |x|); not a number at -infinity, as x Phi(x)
 * is.
 *
 * Phi(-|x|) = exp(-x^2 / 2) t p(t) with t = 1 / (1 + 0.26 |x|), p the minimax polynomial of degree 8 for |x| <= 13.5, where the
 * exponential vanishes (relative error 2e-8): one exponential serves both values, at half the cost of `verf` and `vexp`. A NaN comes
 * through t.
 */
LLMX_INLINE vec vgelu(vec x, vec& derivative) {
  const vec e = vexp_bounded(x * x * -0.5f);
  const vec t = 1.0f / (vabs(x) * 0.26f + 1.0f);
  vec p = t * 0.0307836945f - 0.15418979f;
  p = p * t + 0.254318788f;
  p = p * t - 0.154207407f;
  p = p * t + 0.163221023f;
  p = p * t + 0.0500467485f;
  p = p * t + 0.103285461f;
  p = p * t + 0.102980209f;
  p = p * t + 0.103761262f;
  const vec tail = p * t * e;
  const vec cumulative = select(x < 0.0f, tail, 1.0f - tail);
  derivative = x * 0.398942280f * e + cumulative;
  return x * cumulative;
}

}  // namespace llmx::LLMX_ISA_NAME
