/** Elementary functions over vectors of float32: what the gates need. */
#pragma once

#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME::xlstm {

#if LLMX_ISA == LLMX_ISA_REFERENCE

inline double log_sigmoid(double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }
inline double sigmoid(double x) { return std::exp(log_sigmoid(x)); }

#else

LLMX_INLINE ivec bits_of(vec v) { return reinterpret_cast<ivec>(v); }
LLMX_INLINE vec from_bits(ivec v) { return reinterpret_cast<vec>(v); }
LLMX_INLINE vec magnitude(vec x) { return from_bits(bits_of(x) & 0x7fffffff); }
LLMX_INLINE vec larger(vec a, vec b) { return select(a < b, b, a); }

/**
 * exp(x) to 2 units in the last place; 0 below the smallest normal number, infinity above the largest, NaN stays NaN.
 *
 * x = n ln 2 + r: ln 2 in two parts, so that n times the first is exact; exp(r) is a polynomial; n goes into the exponent.
 */
LLMX_INLINE vec vexp(vec x) {
  constexpr float LOG2_E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: added and taken away again, it rounds to an integer
  typedef uint32_t words __attribute__((vector_size(LANES * 4)));
  const vec shifted = x * LOG2_E + ROUNDER;
  const vec n = shifted - ROUNDER;
  const vec r = (x - n * LN2_HIGH) - n * LN2_LOW;
  vec q = r * 0.0013814540579915047f + 0.0083687454462051392f;
  q = q * r + 0.041668388992547989f;
  q = q * r + 0.16666521131992340f;
  q = q * r + 0.49999994039535522f;
  const vec p = q * (r * r) + r + 1.0f;
  vec y = reinterpret_cast<vec>(reinterpret_cast<words>(p) + (reinterpret_cast<words>(shifted) << 23));
  y = select(x >= 88.72284f, broadcast(INFINITY), y);
  y = select(x < -87.3365f, vec{}, y);
  return select(x == x, y, x);
}

/** 1 / (1 + exp(-x)). */
LLMX_INLINE vec vsigmoid(vec x) {
  const vec e = vexp(-magnitude(x)), y = 1.0f / (1.0f + e);
  return select(x < 0.0f, e * y, y);
}

/** log(sigmoid(x)) = min(x, 0) - log(1 + e) with e = exp(-|x|); log(1 + e) = 2 artanh(e / (2 + e)), a short odd series. */
LLMX_INLINE vec vlog_sigmoid(vec x) {
  const vec e = vexp(-magnitude(x)), s = e / (2.0f + e), square = s * s;
  vec q = square * 0.280119857f + 0.280018055f;
  q = q * square + 0.400215272f;
  q = q * square + 0.666664163f;
  return select(x >= 0.0f, vec{}, x) - (q * (square * s) + 2.0f * s);
}

/** tanh(x): an odd polynomial for |x| < 0.625, beyond it 1 - 2 / (exp(2 |x|) + 1) with the sign of x. */
LLMX_INLINE vec vtanh(vec x) {
  const vec size = magnitude(x), square = x * x;
  vec q = square * -0.00570498725f + 0.0206390875f;
  q = q * square - 0.0537397152f;
  q = q * square + 0.133314422f;
  q = q * square - 0.333332819f;
  const vec far = 1.0f - 2.0f / (vexp(size + size) + 1.0f);
  const vec signed_far = from_bits(bits_of(far) | (bits_of(x) & INT32_MIN));
  return select(size < 0.625f, q * (square * x) + x, signed_far);
}

#endif

}  // namespace llmx::LLMX_ISA_NAME::xlstm
