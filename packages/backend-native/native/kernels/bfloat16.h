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
  typedef uint32_t wide __attribute__((vector_size(LANES * 4)));
  return reinterpret_cast<vec>(__builtin_convertvector(first, wide) | __builtin_convertvector(second, wide) << 16);
}
LLMX_INLINE vec zipped(vec first, vec second) { return zipped(narrowed(first), narrowed(second)); }

#endif

#if LLMX_ISA == LLMX_ISA_AVX512_BF16

/** See FloatWords. */
struct Bfloat16Words {
  /** The word in every element; unlike `broadcast` without arithmetic, which would change what looks like a NaN. */
  static LLMX_INLINE vec factor(const float* word) { return reinterpret_cast<vec>(_mm512_set1_ps(*word)); }
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
