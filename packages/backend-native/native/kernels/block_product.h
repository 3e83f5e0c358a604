/** Products of blocks (llmx/blocks.h), whole or up to their last element. */
#pragma once

#include "llmx/blocks.h"

namespace llmx::LLMX_ISA_NAME {

/**
 * c [m, n] (+)= a b with b [depth, n] and a [m, depth], or (CROSSWISE) a [depth, m]. Every element is the sum over depth, in
 * words, in order. Whole tiles are read and, unless EXACT, written: a, b and c must have room for m and n rounded up to whole tiles.
 */
template <bool CROSSWISE, class Words = FloatWords, bool EXACT = false>
inline void multiply_block(int64_t m, int64_t n, int64_t depth, Lines a, Lines b, Lines c, bool accumulate) {
  const float keep = accumulate ? 1 : 0;
  // Columns outermost: their part of b stays in the first cache.
  for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
    for (int64_t i = 0; i < m; i += TILE_ROWS) {
      const Lines rows = CROSSWISE ? a.from(0, i) : a.from(i), to = c.from(i, j);
      if (!EXACT || (i + TILE_ROWS <= m && j + TILE_COLUMNS <= n)) {
        multiply_tile<CROSSWISE, Words>(depth, rows, b.from(0, j), to, to, keep);
        continue;
      }
      alignas(64) float whole[TILE_ROWS * TILE_COLUMNS];
      const Lines sums{whole, TILE_COLUMNS};
      multiply_tile<CROSSWISE, Words>(depth, rows, b.from(0, j), sums, sums, 0);
      for (int64_t y = 0; y < min<int64_t>(TILE_ROWS, m - i); ++y)
        for (int64_t x = 0; x < min<int64_t>(TILE_COLUMNS, n - j); ++x) {
          float& element = to.data[y * c.stride + x];
          element = (accumulate ? element : 0) + whole[y * TILE_COLUMNS + x];
        }
    }
  }
}

}  // namespace llmx::LLMX_ISA_NAME
