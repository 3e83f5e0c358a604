/** Words of two bfloat16, where the machine multiplies such pairs. */
#pragma once

#include "llmx/blocks.h"
#include "llmx/numbers.h"

namespace llmx::LLMX_ISA_NAME {

#if LLMX_ISA >= LLMX_ISA_AVX512_BF16

// Two bfloat16 in a word of 32 bits, the first in its lower half. Words are moved as floats, never computed with as such.

/** The words of 32 neighbouring numbers. */
LLMX_INLINE vec neighbours(vec first, vec second) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<vec>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
#else
  const half_vec halves[2] = {narrowed(first), narrowed(second)};
  vec v;
  std::memcpy(&v, halves, sizeof v);
  return v;
#endif
}

/** Words with an element of `first` and one of `second` each. */
LLMX_INLINE vec zipped(half_vec first, half_vec second) {
#if defined(__AVX512BW__)
  // Word i: number i of the first and, in the upper half, of the second.
  typedef int32_t words __attribute__((vector_size(LANES * 4)));
  constexpr words FIRST = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto wide = [](half_vec v) { return _mm512_castsi256_si512(reinterpret_cast<__m256i>(v)); };
  const __m512i from = reinterpret_cast<__m512i>(FIRST * 0x10001 + (32 << 16));
  return reinterpret_cast<vec>(_mm512_permutex2var_epi16(wide(first), from, wide(second)));
#else
  typedef uint32_t wide __attribute__((vector_size(LANES * 4)));
  return reinterpret_cast<vec>(__builtin_convertvector(first, wide) | __builtin_convertvector(second, wide) << 16);
#endif
}
LLMX_INLINE vec zipped(vec first, vec second) {
#if defined(__AVX512BF16__)
  typedef int32_t words __attribute__((vector_size(LANES * 4)));
  constexpr words FIRST = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const __m512i from = reinterpret_cast<__m512i>(FIRST * 0x10001 + (16 << 16));
  return reinterpret_cast<vec>(_mm512_permutexvar_epi16(from, reinterpret_cast<__m512i>(neighbours(first, second))));
#else
  return zipped(narrowed(first), narrowed(second));
#endif
}

#endif

#if LLMX_ISA == LLMX_ISA_AVX512_BF16

/** See FloatWords. */
struct Bfloat16Words {
  /**
   * The word in every element, from any address: bfloat16 may lie at odd multiples of 2. Unlike `broadcast` without arithmetic, which
   * would change what looks like a NaN.
   */
  static LLMX_INLINE vec factor(const float* word) {
    float v;
    std::memcpy(&v, word, sizeof v);
    return reinterpret_cast<vec>(_mm512_set1_ps(v));
  }
  /** sums + products of the pairs. Subnormal numbers count as 0. */
  static LLMX_INLINE vec add(vec sums, vec factor, vec columns) {
    return reinterpret_cast<vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(factor),
                                                  reinterpret_cast<__m512bh>(columns)));
  }
};

#else

/** Rounded floats. */
using Bfloat16Words = FloatWords;

#endif

}  // namespace llmx::LLMX_ISA_NAME
