/** Products of small dense blocks that lie in a cache, read where they are; and what brings blocks there. */
#pragma once

#include "llmx/blocks.h"

#if LLMX_ISA != LLMX_ISA_REFERENCE

namespace llmx::LLMX_ISA_NAME::xlstm {

/** Positions of a sum over depth. */
struct Range {
  int64_t begin, end;
};

/**
 * c [m, n] = keep * from + a b with a [m, depth] or (CROSSWISE) [depth, m], b [depth, n]; `range(i, j)` are the positions that
 * count for the tile at (i, j), none: the tile is left as it is. Every element is one sum in order. Whole tiles are written.
 */
template <bool CROSSWISE, class F>
LLMX_INLINE void multiply(int64_t m, int64_t n, Lines a, Lines b, Lines c, Lines from, float keep, const F& range) {
  for (int64_t j = 0; j < n; j += TILE_COLUMNS)
    for (int64_t i = 0; i < m; i += TILE_ROWS) {
      const Range depth = range(i, j);
      if (depth.begin >= depth.end) continue;
      const Lines rows = CROSSWISE ? a.from(depth.begin, i) : a.from(i, depth.begin);
      multiply_tile<CROSSWISE>(depth.end - depth.begin, rows, b.from(depth.begin, j), c.from(i, j), from.from(i, j), keep);
    }
}
template <bool CROSSWISE>
inline void multiply(int64_t m, int64_t n, int64_t depth, Lines a, Lines b, Lines c, Lines from, float keep) {
  multiply<CROSSWISE>(m, n, a, b, c, from, keep, [=](int64_t, int64_t) { return Range{0, depth}; });
}

/** f(column, load, store) for vectors over [0, size); the last may be part of one, filled up with zeros or what `load` is told. */
template <class F>
LLMX_INLINE void for_vectors(int64_t size, const F& f) {
  int64_t d = 0;
  for (; d + LANES <= size; d += LANES)
    f(d, [](const float* p, float = 0) { return load(p); }, [](float* p, vec v) { store(p, v); });
  const int rest = static_cast<int>(size - d);
  if (rest > 0)
    f(d, [=](const float* p, float fill = 0) { return load_first(p, rest, fill); },
      [=](float* p, vec v) { store_first(p, v, rest); });
}

/** to [size] = the sum of parts [count, size], in their order. */
inline void add_parts(float* to, const float* parts, int64_t count, int64_t size) {
  parallel_chunks(size, 4096, [=](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t i, auto get, auto put) {
      vec sum = vec{};
      for (int64_t part = 0; part < count; ++part) sum += get(parts + part * size + begin + i);
      put(to + begin + i, sum);
    });
  });
}

inline float dot(const float* a, const float* b, int64_t size) {
  vec sums = vec{};
  for_vectors(size, [&](int64_t d, auto get, auto) { sums += get(a + d) * get(b + d); });
  return sum(sums);
}

/**
 * Fetches the row that will be read (or written) in a while: rows of one head are short and far apart, too short for the
 * machine's own prefetching, and what stands between calls of a kernel is more than its caches hold.
 */
template <bool WRITES>
LLMX_INLINE void prefetch_row(const float* row, int64_t stride, int64_t size) {
  const float* ahead = row + (size < 256 ? 8 : 2) * stride;
  for (int64_t d = 0; d < size; d += 16) __builtin_prefetch(ahead + d, WRITES ? 1 : 0);
}

/** Rows of `size` floats to lines, times `factor`. */
inline void copy_rows(Lines to, const float* from, int64_t stride, int64_t rows, int64_t size, float factor) {
  for (int64_t i = 0; i < rows; ++i, from += stride) {
    float* row = to.row(i);
    prefetch_row<false>(from, stride, size);
    for_vectors(size, [&](int64_t d, auto get, auto) { store(row + d, factor * get(from + d)); });
  }
}
/** Lines to rows of `size` floats, times `factor`. */
inline void put_rows(float* to, int64_t stride, Lines from, int64_t rows, int64_t size, float factor) {
  for (int64_t i = 0; i < rows; ++i, to += stride) {
    const float* row = from.row(i);
    prefetch_row<true>(to, stride, size);
    for_vectors(size, [&](int64_t d, auto, auto put) { put(to + d, factor * load(row + d)); });
  }
}

}  // namespace llmx::LLMX_ISA_NAME::xlstm

#endif
