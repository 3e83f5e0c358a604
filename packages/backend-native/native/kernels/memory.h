/** Reading and writing memory: vectors at the end of an array, and stores that leave the caches alone. */
#pragma once

#include "llmx/kernel.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace llmx::LLMX_ISA_NAME {

/** Elements that a task takes where a kernel does little per element: 64 KiB, small beside the second-level cache. */
constexpr int64_t TASK_ELEMENTS = 16384;

/** `count` (1 to LANES) elements; the other lanes are `fill`. A plain load where count is the constant LANES. */
LLMX_INLINE vec load_some(const float* p, int64_t count, float fill = 0) {
  return count == LANES ? load(p) : load_first(p, static_cast<int>(count), fill);
}
LLMX_INLINE void store_some(float* p, vec v, int64_t count) {
  if (count == LANES) return store(p, v);
  store_first(p, v, static_cast<int>(count));
}

/** f(i, count) over [0, n): whole vectors, then the rest. */
template <class F>
LLMX_INLINE void for_vectors(int64_t n, const F& f) {
  int64_t i = 0;
#pragma GCC unroll 4
  for (; i + LANES <= n; i += LANES) f(i, int64_t{LANES});
  if (i < n) f(i, n - i);
}

/**
 * Sum over [0, n) of f(i, count), a vector whose lanes from `count` on are 0. Four sums run side by side, since an addition
 * takes four cycles; their order depends on n alone.
 */
template <class F>
LLMX_INLINE float sum_vectors(int64_t n, const F& f) {
  vec s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) {
    s0 += f(i, int64_t{LANES});
    s1 += f(i + LANES, int64_t{LANES});
    s2 += f(i + 2 * LANES, int64_t{LANES});
    s3 += f(i + 3 * LANES, int64_t{LANES});
  }
  for (; i + LANES <= n; i += LANES) s0 += f(i, int64_t{LANES});
  if (i < n) s1 += f(i, n - i);
  return sum((s0 + s1) + (s2 + s3));
}

/**
 * y[0, n) = value, past the caches: without reading the lines first and without displacing others. For tensors too large to
 * be found in a cache later.
 */
inline void stream_fill(float* y, int64_t n, float value) {
#if defined(__SSE2__)
  int64_t i = 0;
  while (i < n && reinterpret_cast<uintptr_t>(y + i) % 64 != 0) y[i++] = value;
#if defined(__AVX512F__)
  const __m512 wide = _mm512_set1_ps(value);
  for (; i + 16 <= n; i += 16) _mm512_stream_ps(y + i, wide);
#else
  const __m128 wide = _mm_set1_ps(value);
  for (; i + 4 <= n; i += 4) _mm_stream_ps(y + i, wide);
#endif
  while (i < n) y[i++] = value;
  _mm_sfence();
#else
  for (int64_t i = 0; i < n; ++i) y[i] = value;
#endif
}

/** y[0, n) = value on all threads; tensors above 16 MiB (half of a usual last-level cache) with stream_fill. */
inline void fill(float* y, int64_t n, float value) {
  const bool stream = n > (int64_t{4} << 20);
  parallel_chunks(n, TASK_ELEMENTS, [=](int64_t begin, int64_t end) {
    if (stream) return stream_fill(y + begin, end - begin, value);
    for (int64_t i = begin; i < end; ++i) y[i] = value;
  });
}

}  // namespace llmx::LLMX_ISA_NAME
