/** Numbers rounded to bfloat16: float32 with the upper 16 bits alone, to the nearest, ties to even. */
#pragma once

#include "llmx/kernel.h"

#if LLMX_ISA == LLMX_ISA_AVX512_BF16
#include <immintrin.h>
#endif

namespace llmx::LLMX_ISA_NAME {

/** The nearest bfloat16, as float32. A NaN stays one; what is beyond the largest becomes infinity. */
LLMX_INLINE float rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  bits = (bits & 0x7fffffffu) > 0x7f800000u ? (bits | 0x400000u) & 0xffff0000u : nearest;
  std::memcpy(&x, &bits, 4);
  return x;
}

LLMX_INLINE vec rounded(vec v) {
  typedef uint32_t bits __attribute__((vector_size(LANES * 4)));
  const bits x = reinterpret_cast<bits>(v);
  const bits nearest = (x + 0x7fffu + (x >> 16 & 1u)) & 0xffff0000u;
  const bits quiet = (x | 0x400000u) & 0xffff0000u;
  const ivec nan = reinterpret_cast<ivec>((x & 0x7fffffffu) > 0x7f800000u);
  return select(nan, reinterpret_cast<vec>(quiet), reinterpret_cast<vec>(nearest));
}

#if LLMX_ISA == LLMX_ISA_AVX512_BF16

// Two bfloat16 in a word of 32 bits, the first in its lower half. Words are moved as floats, never computed with as such.

/** The words of 32 neighbouring numbers. */
LLMX_INLINE vec neighbours(vec first, vec second) {
  return reinterpret_cast<vec>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
}

/** Words with an element of `first` and one of `second` each. */
LLMX_INLINE vec zipped(vec first, vec second) {
  typedef uint16_t narrow __attribute__((vector_size(LANES * 2)));
  typedef uint32_t wide __attribute__((vector_size(LANES * 4)));
  const auto halves = [](vec v) {
    return __builtin_convertvector(reinterpret_cast<narrow>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v))), wide);
  };
  return reinterpret_cast<vec>(halves(first) | halves(second) << 16);
}

/** The word in every element; unlike `broadcast` without arithmetic, which would change what looks like a NaN. */
LLMX_INLINE vec broadcast_word(const float* word) { return reinterpret_cast<vec>(_mm512_set1_ps(*word)); }

/** sums + products of the pairs in a and b. Subnormal numbers count as 0. */
LLMX_INLINE vec add_products(vec sums, vec a, vec b) {
  return reinterpret_cast<vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(a),
                                                reinterpret_cast<__m512bh>(b)));
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
