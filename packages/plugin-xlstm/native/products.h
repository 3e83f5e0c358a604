/** Products of small dense blocks that lie in a cache, read where they are; and what brings blocks there. */
#pragma once

#include "llmx/kernel.h"

#if LLMX_ISA != LLMX_ISA_REFERENCE

namespace llmx::LLMX_ISA_NAME::xlstm {

// A tile of sums stays in registers: 8 rows by two vectors are 16 independent sums, which hide the latency of a fused
// multiply-add, for 10 loads per 16 of them. AVX2 has 16 registers, SSE2 these and no fused product.
#if LLMX_ISA == LLMX_ISA_AVX512 || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#elif LLMX_ISA == LLMX_ISA_AVX2
constexpr int TILE_ROWS = 6;
#else
constexpr int TILE_ROWS = 4;
#endif
constexpr int TILE_COLUMNS = 2 * LANES;

/** Rows of floats, `stride` apart. */
struct Lines {
  float* data;
  int64_t stride;

  float* row(int64_t i) const { return data + i * stride; }
  Lines from(int64_t i, int64_t column = 0) const { return {row(i) + column, stride}; }
};

/** Distance of rows: an odd number of 128 bytes, so that the same columns of many rows do not compete for a cache's sets. */
inline int64_t line_stride(int64_t columns) { return 32 * (divide_up(columns, 32) | 1); }

/** Parts of one piece of memory, each aligned to 64 bytes; without memory, only their total is counted. */
class Parts {
 public:
  explicit Parts(float* memory) : memory_(memory) {}
  float* floats(int64_t count) {
    float* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += round_up(count, 16);
    return part;
  }
  /** Room for whole tiles, read or written beyond the last row and column. */
  Lines lines(int64_t rows, int64_t columns) {
    const int64_t stride = line_stride(columns);
    return {floats(round_up(rows, TILE_ROWS) * stride + TILE_COLUMNS), stride};
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

/** Positions of a sum over depth. */
struct Range {
  int64_t begin, end;
};

/** c [TILE_ROWS, TILE_COLUMNS] = keep * from + a b; row i of c takes row i of a, or (CROSSWISE) column i. */
template <bool CROSSWISE>
__attribute__((noinline)) void multiply_tile(int64_t depth, const float* __restrict a, int64_t a_stride,
                                             const float* __restrict b, int64_t b_stride, float* c, int64_t c_stride,
                                             const float* from, int64_t from_stride, float keep) {
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
  if (keep == 0) {
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; ++i, c += c_stride) {
      store(c, sums[i][0]);
      store(c + LANES, sums[i][1]);
    }
    return;
  }
#pragma GCC unroll 8
  for (int i = 0; i < TILE_ROWS; ++i, c += c_stride, from += from_stride) {
    store(c, keep * load(from) + sums[i][0]);
    store(c + LANES, keep * load(from + LANES) + sums[i][1]);
  }
}

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
      multiply_tile<CROSSWISE>(depth.end - depth.begin, rows.data, a.stride, b.row(depth.begin) + j, b.stride, c.row(i) + j,
                               c.stride, from.row(i) + j, from.stride, keep);
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

typedef float quad __attribute__((vector_size(16)));
typedef float unaligned_quad __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__clang__)
#define XLSTM_SHUFFLE(A, B, I, J, K, L) __builtin_shufflevector(A, B, I, J, K, L)
#else
typedef int32_t quad_indices __attribute__((vector_size(16)));
#define XLSTM_SHUFFLE(A, B, I, J, K, L) __builtin_shuffle(A, B, quad_indices{I, J, K, L})
#endif

/** to [columns, rows] = from [rows, columns] transposed. */
inline void transpose(Lines to, Lines from, int64_t rows, int64_t columns) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  const auto get = [&](int64_t i, int64_t j) -> quad { return *reinterpret_cast<const unaligned_quad*>(from.row(i) + j); };
  const auto put = [&](int64_t j, int64_t i, quad v) { *reinterpret_cast<unaligned_quad*>(to.row(j) + i) = v; };
  for (int64_t i = 0; i < whole_rows; i += 4)
    for (int64_t j = 0; j < whole_columns; j += 4) {
      const quad a = get(i, j), b = get(i + 1, j), c = get(i + 2, j), d = get(i + 3, j);
      const quad ab = XLSTM_SHUFFLE(a, b, 0, 4, 1, 5), cd = XLSTM_SHUFFLE(c, d, 0, 4, 1, 5);
      const quad ab2 = XLSTM_SHUFFLE(a, b, 2, 6, 3, 7), cd2 = XLSTM_SHUFFLE(c, d, 2, 6, 3, 7);
      put(j, i, XLSTM_SHUFFLE(ab, cd, 0, 1, 4, 5));
      put(j + 1, i, XLSTM_SHUFFLE(ab, cd, 2, 3, 6, 7));
      put(j + 2, i, XLSTM_SHUFFLE(ab2, cd2, 0, 1, 4, 5));
      put(j + 3, i, XLSTM_SHUFFLE(ab2, cd2, 2, 3, 6, 7));
    }
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = j < whole_columns ? whole_rows : 0; i < rows; ++i) to.row(j)[i] = from.row(i)[j];
}

}  // namespace llmx::LLMX_ISA_NAME::xlstm

#endif
