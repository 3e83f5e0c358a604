/**
 * Products of blocks that lie in the first or second cache already, read where they are instead of from packed panels: for
 * kernels that chain several products over small blocks, where packing each operand would cost as much as its product.
 */
#pragma once

#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

// A tile of sums that stays in registers. Heads of 64 and blocks of 64 must be whole tiles, which panels of three vectors
// (48) are not. Two vectors by 8 rows: 10 loads for 16 multiply-adds, bound by arithmetic with two of each per cycle, and 16
// independent sums hide its latency. AVX2 (16 registers): 12 + 2 + 1. SSE2 (16 registers, no fused product): 8 + 2 + 1 + 1.
#if LLMX_ISA == LLMX_ISA_AVX512 || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#elif LLMX_ISA == LLMX_ISA_AVX2
constexpr int TILE_ROWS = 6;
#else
constexpr int TILE_ROWS = 4;
#endif
constexpr int TILE_COLUMNS = 2 * LANES;

/** A block of floats whose lines are `stride` apart. */
struct Lines {
  float* data;
  int64_t stride;

  Lines from(int64_t line, int64_t column = 0) const { return {data + line * stride + column, stride}; }
};

/** c [TILE_ROWS, TILE_COLUMNS] (+)= a b; line i of c takes line i of a, or (CROSSWISE) column i of a. */
template <bool CROSSWISE>
__attribute__((noinline)) void block_tile(int64_t depth, const float* __restrict a, int64_t a_stride,
                                          const float* __restrict b, int64_t b_stride, float* __restrict c,
                                          int64_t c_stride, bool accumulate) {
  vec sums[TILE_ROWS][2];
#pragma GCC unroll 8
  for (int i = 0; i < TILE_ROWS; ++i) sums[i][0] = sums[i][1] = vec{};
  for (int64_t p = 0; p < depth; ++p, b += b_stride) {
    const vec left = load(b), right = load(b + LANES);
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; ++i) {
      const vec factor = broadcast(CROSSWISE ? a[i] : a[i * a_stride]);
      sums[i][0] += factor * left;
      sums[i][1] += factor * right;
    }
    a += CROSSWISE ? a_stride : 1;
  }
#pragma GCC unroll 8
  for (int i = 0; i < TILE_ROWS; ++i, c += c_stride) {
    store(c, accumulate ? load(c) + sums[i][0] : sums[i][0]);
    store(c + LANES, accumulate ? load(c + LANES) + sums[i][1] : sums[i][1]);
  }
}

/**
 * c [m, n] (+)= a b with b [depth, n] and a [m, depth], or (CROSSWISE) a [depth, m]. Every element is the sum over depth in
 * order. Whole tiles are read and, unless EXACT, written: a, b and c must have room for m and n rounded up to whole tiles.
 */
template <bool CROSSWISE, bool EXACT = false>
inline void multiply_block(int64_t m, int64_t n, int64_t depth, Lines a, Lines b, Lines c, bool accumulate) {
  // Columns outermost: their part of b stays in the first cache.
  for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
    for (int64_t i = 0; i < m; i += TILE_ROWS) {
      const Lines rows = CROSSWISE ? a.from(0, i) : a.from(i), to = c.from(i, j);
      if (!EXACT || (i + TILE_ROWS <= m && j + TILE_COLUMNS <= n)) {
        block_tile<CROSSWISE>(depth, rows.data, a.stride, b.data + j, b.stride, to.data, c.stride, accumulate);
        continue;
      }
      alignas(64) float whole[TILE_ROWS * TILE_COLUMNS];
      block_tile<CROSSWISE>(depth, rows.data, a.stride, b.data + j, b.stride, whole, TILE_COLUMNS, false);
      for (int64_t y = 0; y < min<int64_t>(TILE_ROWS, m - i); ++y)
        for (int64_t x = 0; x < min<int64_t>(TILE_COLUMNS, n - j); ++x) {
          float& element = to.data[y * c.stride + x];
          element = (accumulate ? element : 0) + whole[y * TILE_COLUMNS + x];
        }
    }
  }
}

}  // namespace llmx::LLMX_ISA_NAME
