/**
 * Elementary functions over vectors of float32. Plain vector arithmetic: the same code on every instruction set (but not
 * the same bits, since products and sums are fused where the machine can).
 */
#pragma once

#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));

/** The bits of a float as an integer and back, in all lanes. */
LLMX_INLINE ivec bits_of(vec v) { return reinterpret_cast<ivec>(v); }
LLMX_INLINE vec from_bits(ivec v) { return reinterpret_cast<vec>(v); }

// Added to a float of magnitude below 2^22 and taken away again, rounds it to the nearest integer; in between, the low bits
// of the sum are that integer.
constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23

/**
 * exp(x) for x < 88.7, relative error at most 2 units in the last place. 0 where the result would be below the smallest normal
 * number (x < -87.3365). Of NaN it is anything.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, exp(x) = 2^n exp(r). ln 2 is split so that n * LN2_HIGH is exact. exp(r) is
 * 1 + r + r^2 q(r), the minimax polynomial of degree 6 (relative error 3e-9). 2^n is added to the exponent's bits: that
 * reaches n = 128, where a factor 2^n would already be infinite.
 */
LLMX_INLINE vec vexp_bounded(vec x) {
  constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  const vec shifted = x * 1.44269504f + ROUNDER;
  const vec n = shifted - ROUNDER;
  const vec r = (x - n * LN2_HIGH) - n * LN2_LOW;
  vec q = r * 0.0013814540579915047f + 0.0083687454462051392f;
  q = q * r + 0.041668388992547989f;
  q = q * r + 0.16666521131992340f;
  q = q * r + 0.49999994039535522f;
  const vec p = q * (r * r) + r + 1.0f;
  // Unsigned: where the result is replaced, here or by the caller, the sum may wrap around.
  const vec y = reinterpret_cast<vec>(reinterpret_cast<uvec>(p) + (reinterpret_cast<uvec>(shifted) << 23));
  return x < -87.3365f ? vec{} : y;
}

/** exp(x) of any x, as accurate; infinity where it would overflow, and NaN stays NaN. */
LLMX_INLINE vec vexp(vec x) {
  vec y = vexp_bounded(x);
  y = x >= 88.72284f ? broadcast(INFINITY) : y;
  return x == x ? y : x;
}

/** |x|, and x with the sign bit of `sign`. */
LLMX_INLINE vec vabs(vec x) { return from_bits(bits_of(x) & 0x7fffffff); }
LLMX_INLINE vec with_sign(vec x, vec sign) {
  return from_bits((bits_of(x) & 0x7fffffff) | (bits_of(sign) & INT32_MIN));
}

/** Square root, correctly rounded; NaN below 0. */
LLMX_INLINE vec vsqrt(vec x) {
  for (int i = 0; i < LANES; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

/**
 * log(x), relative error at most 2 units in the last place; -infinity at 0, NaN below.
 *
 * x = 2^n m with m in [sqrt(1/2), sqrt(2)); log(m) = f - f^2/2 + f^3 q(f) with f = m - 1, the minimax polynomial of degree
 * 7 (relative error 6e-9). Subnormal numbers are scaled to normal ones first.
 */
LLMX_INLINE vec vlog(vec x) {
  constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  constexpr int32_t SQRT_HALF = 0x3f3504f3;
  const vec positive = select(x > 0.0f, x, broadcast(1.0f));
  const ivec subnormal = positive < 1.17549435e-38f;
  const ivec bits = bits_of(select(subnormal, positive * 8388608.0f, positive)) - SQRT_HALF;
  const vec n = __builtin_convertvector((bits >> 23) - (subnormal & 23), vec);
  const vec f = from_bits((bits & 0x7fffff) + SQRT_HALF) - 1.0f;
  vec q = f * -0.0763449653f + 0.12761577f;
  q = q * f - 0.131601824f;
  q = q * f + 0.14201758f;
  q = q * f - 0.166233573f;
  q = q * f + 0.200012269f;
  q = q * f - 0.25000821f;
  q = q * f + 0.333333317f;
  const vec square = f * f;
  vec y = q * (square * f) + (n * LN2_LOW - square * 0.5f);
  y = n * LN2_HIGH + (f + y);
  y = select(x > 0.0f, y, select(x == 0.0f, broadcast(-INFINITY), broadcast(NAN)));
  return select(x == INFINITY, x, y);
}

/** 1 / (1 + exp(-x)): with exp(-|x|), which cannot overflow. */
LLMX_INLINE vec vsigmoid(vec x) {
  const vec e = vexp(-vabs(x));
  const vec y = 1.0f / (1.0f + e);
  return select(x < 0.0f, e * y, y);
}

/**
 * log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|); log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, keeps its
 * relative accuracy for small e (polynomial in s^2, relative error 5e-9).
 */
LLMX_INLINE vec vsoftplus(vec x) {
  const vec e = vexp(-vabs(x));
  const vec s = e / (2.0f + e);
  const vec square = s * s;
  vec q = square * 0.280119857f + 0.280018055f;
  q = q * square + 0.400215272f;
  q = q * square + 0.666664163f;
  // The larger of x and 0 is chosen so that a NaN comes out as one.
  return select(x <= 0.0f, vec{}, x) + (q * (square * s) + 2.0f * s);
}

/**
 * tanh(x): x + x^3 q(x^2) for |x| < 0.625 (relative error 4e-9), beyond it 1 - 2 / (exp(2 |x|) + 1), where 1 dominates.
 */
LLMX_INLINE vec vtanh(vec x) {
  const vec magnitude = vabs(x), square = x * x;
  vec q = square * -0.00570498725f + 0.0206390875f;
  q = q * square - 0.0537397152f;
  q = q * square + 0.133314422f;
  q = q * square - 0.333332819f;
  const vec far = 1.0f - 2.0f / (vexp(magnitude + magnitude) + 1.0f);
  return select(magnitude < 0.625f, q * (square * x) + x, with_sign(far, x));
}

/**
 * erf(x): x q(x^2) for |x| < 1 (relative error 1e-9), beyond it 1 - exp(r(|x| - 1)), where r is the polynomial for log erfc
 * whose error, times erfc, is below 1e-9. From 4 on the result is 1.
 */
LLMX_INLINE vec verf(vec x) {
  const vec magnitude = vabs(x), square = x * x;
  vec q = square * 7.85389186e-05f - 0.000801020363f;
  q = q * square + 0.00518832895f;
  q = q * square - 0.0268538127f;
  q = q * square + 0.112835852f;
  q = q * square - 0.376126258f;
  q = q * square + 1.12837917f;
  const vec u = select(magnitude > 4.0f, broadcast(3.0f), magnitude - 1.0f);
  vec r = u * 0.000185574025f - 0.0018261633f;
  r = r * u + 0.00989089202f;
  r = r * u - 0.0415006883f;
  r = r * u - 0.843118336f;
  r = r * u - 2.63896682f;
  r = r * u - 1.84960552f;
  return select(magnitude < 1.0f, q * x, with_sign(1.0f - vexp(r), x));
}

}  // namespace llmx::LLMX_ISA_NAME
