/**
 * Numbers in memory: float32, or bfloat16 (float32 with the upper 16 bits alone, rounded to the nearest, ties to even). A kernel
 * whose caller says so may be given bfloat16 in place of float32; it computes in float32 all the same.
 */
#pragma once

#include "llmx/kernel.h"

#if defined(__AVX512BF16__)
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

/** LANES bfloat16. */
typedef uint16_t half_vec __attribute__((vector_size(LANES * 2)));
typedef uint16_t unaligned_half_vec __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

LLMX_INLINE vec widened(half_vec v) {
  typedef uint32_t bits __attribute__((vector_size(LANES * 4)));
  return reinterpret_cast<vec>(__builtin_convertvector(v, bits) << 16);
}
/** Rounded; where the machine has an instruction for it, subnormal numbers become 0. */
LLMX_INLINE half_vec narrowed(vec v) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<half_vec>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v)));
#else
  typedef uint32_t bits __attribute__((vector_size(LANES * 4)));
  return __builtin_convertvector(reinterpret_cast<bits>(rounded(v)) >> 16, half_vec);
#endif
}

/** An array of float32 or bfloat16, or none. */
struct Numbers {
  char* data = nullptr;
  /** Whether they are bfloat16. */
  bool narrow = false;

  Numbers() = default;
  Numbers(const float* floats) : data(reinterpret_cast<char*>(const_cast<float*>(floats))) {}
  Numbers(void* memory, bool is_narrow) : data(static_cast<char*>(memory)), narrow(is_narrow) {}

  explicit operator bool() const { return data != nullptr; }
  int64_t bytes_each() const { return narrow ? 2 : 4; }
  /** From element `index` on. */
  Numbers from(int64_t index) const { return {data + index * bytes_each(), narrow}; }
  /** The same memory as what it is known to hold. */
  float* floats() const { return reinterpret_cast<float*>(data); }
  uint16_t* halves() const { return reinterpret_cast<uint16_t*>(data); }

  LLMX_INLINE float get(int64_t index) const {
    if (!narrow) return floats()[index];
    const uint32_t bits = static_cast<uint32_t>(halves()[index]) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
  LLMX_INLINE void put(int64_t index, float x) const {
    if (!narrow) {
      floats()[index] = x;
      return;
    }
    x = rounded(x);
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    halves()[index] = static_cast<uint16_t>(bits >> 16);
  }
  /** `count` (1 to LANES) elements from `index` on; the other lanes are `fill`. */
  LLMX_INLINE vec load_some(int64_t index, int64_t count, float fill = 0) const {
    if (!narrow) return count == LANES ? load(floats() + index) : load_first(floats() + index, static_cast<int>(count), fill);
    if (count == LANES) return widened(*reinterpret_cast<const unaligned_half_vec*>(halves() + index));
    vec v = broadcast(fill);
    for (int64_t lane = 0; lane < count; ++lane) v[lane] = get(index + lane);
    return v;
  }
  LLMX_INLINE void store_some(int64_t index, vec v, int64_t count) const {
    if (!narrow) return count == LANES ? store(floats() + index, v) : store_first(floats() + index, v, static_cast<int>(count));
    const half_vec halves_of = narrowed(v);
    if (count == LANES) {
      *reinterpret_cast<unaligned_half_vec*>(halves() + index) = halves_of;
    } else {
      std::memcpy(halves() + index, &halves_of, static_cast<size_t>(count) * 2);
    }
  }
};

/** The numbers of a tensor, or none where it was left out. */
inline Numbers numbers(const Call& call, int index) {
  if (!call.has(index)) return {};
  return {call.tensor(index).data, call.tensor(index).dtype == LLMX_BFLOAT16};
}

}  // namespace llmx::LLMX_ISA_NAME
